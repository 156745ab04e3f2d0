"""L2: most trainings end before any critical point; gradient norm and curvature tell the cases apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import lrfast

from . import figure
from .descent import Descent, descend
from .lesson import Lesson, number, pictures
from .surface import LONG_BOWL, SADDLE, bowl

__all__ = ["Verdict", "judge", "lesson", "runs"]

UPDATES = 2_000


@dataclass(frozen=True)
class Verdict:
    """``kind``: bouncing, crawling, minimum, saddle, or descending where nothing is wrong.

    ``evidence`` holds the numbers that it rests on: ``grad_norm`` now, ``shrunk`` (grad_norm over the largest of the
    run), ``turning`` (share of late gradients that point against the one before), ``updates_needed`` (for the loss to
    fall to zero at the present speed), ``curvature_min`` and ``curvature_max`` (eigenvalues of the Hessian).
    """

    kind: str
    text: str
    evidence: dict[str, float]


@cache
def runs() -> dict[str, Descent]:
    """Four runs of 2,000 updates by the verdict that is right for each."""
    return {
        "bouncing": descend(LONG_BOWL, lrfast.SGD, UPDATES, lr=0.01),
        "crawling": descend(LONG_BOWL, lrfast.SGD, UPDATES, lr=1e-7),
        "minimum": descend(bowl(1.0, 2.0), lrfast.SGD, UPDATES, lr=0.1),
        "saddle": descend(SADDLE, lrfast.SGD, UPDATES, lr=0.1, start=(-5.0, 0.0)),
    }


def judge(run: Descent) -> Verdict:
    """A verdict on the end of a run of gradient descent, from gradient norm first and curvature second."""
    norms, losses = run.grad_norms, run.losses
    late = run.gradients[run.updates // 2 :]
    turning = float(((late[1:] * late[:-1]).sum(axis=-1) < 0).mean())
    lr = float(run.rates[-1].max())
    curvatures = _curvatures(run)
    evidence = {
        "grad_norm": float(norms[-1]),
        "shrunk": float(norms[-1] / norms.max()),
        "turning": turning,
        "updates_needed": float(losses[-1] / (lr * norms[-1] ** 2)) if norms[-1] > 0 else np.inf,
        "curvature_min": curvatures[0],
        "curvature_max": curvatures[-1],
    }
    if evidence["shrunk"] < 1e-6:
        if evidence["curvature_min"] < 0:
            return Verdict("saddle", "A saddle: the gradient is gone, but one direction curves down.", evidence)
        return Verdict("minimum", "A minimum: the gradient is gone and every direction curves up.", evidence)
    if turning > 0.5 and losses[-1] > 0.9 * losses[run.updates // 2]:
        text = "Bouncing: the loss stands, but the gradient is large and keeps turning round. Lower the rate."
        return Verdict("bouncing", text, evidence)
    if turning == 0 and evidence["updates_needed"] > 5 * run.updates:
        text = "Crawling: the gradient is large and always points the same way. Raise the rate."
        return Verdict("crawling", text, evidence)
    return Verdict("descending", "Descending: nothing is wrong.", evidence)


def _curvatures(run: Descent) -> tuple[float, ...]:
    """Eigenvalues of the Hessian at the last point, by central differences of the gradient."""
    h = 1e-4
    columns = [
        run.surface.gradient(run.path[-1] + step) - run.surface.gradient(run.path[-1] - step) for step in h * np.eye(2)
    ]
    hessian = np.array(columns) / (2 * h)
    return tuple(float(value) for value in np.linalg.eigvalsh((hessian + hessian.T) / 2))


def lesson(folder: Path) -> Lesson:
    """Draws into the folder."""
    verdicts = {expected: judge(run) for expected, run in runs().items()}
    _draw(folder)
    right = sum(verdict.kind == expected for expected, verdict in verdicts.items())
    shown = pictures(["l2-grad_norm"], "Norm of the gradient relative to its largest: two runs end far above zero.")
    return Lesson(
        name="L2",
        title="Stuck: but where?",
        claim="Most trainings end before they reach any critical point. The gradient norm tells whether they did, and "
        "the curvature then tells a minimum from a saddle.",
        measured=f"{right} of {len(verdicts)} runs with a known answer get the right verdict",
        holds=right == len(verdicts),
        body=f"""
<p>Four runs of {UPDATES:,} updates, each with a known answer. Look at the norm of the gradient first: in the first two
it is not small, so there is no critical point, however flat the loss looks; whether gradients turn round, that is
point against the one before, tells a rate too large from a rate too small. If it is small, look at the curvatures
(the eigenvalues of the Hessian): all positive at a minimum, one of them negative at a saddle.</p>
<div class="scroll"><table class="words"><thead><tr><th scope="col">run</th><th scope="col">gradient norm</th>
<th scope="col">turn round</th><th scope="col">curvatures</th><th scope="col">verdict</th></tr></thead>
<tbody>{"".join(_row(verdict) for verdict in verdicts.values())}</tbody></table></div>
{shown}""",
    )


def _row(verdict: Verdict) -> str:
    evidence = verdict.evidence
    curvatures = ", ".join(number(evidence[key]) for key in ("curvature_min", "curvature_max"))
    return (
        f'<tr><th scope="row">{verdict.kind}</th><td data-label="gradient norm">'
        f"{number(evidence['grad_norm'])}</td>"
        f'<td data-label="turn round">{100 * evidence["turning"]:.0f} %</td>'
        f'<td data-label="curvatures">{curvatures}</td><td data-label="verdict">{verdict.text}</td></tr>'
    )


def _draw(folder: Path) -> None:
    picture, axes = figure.new(legend=2)
    for (name, run), colour, dashes in zip(runs().items(), figure.COLOURS, ("-", "--", "-", "--"), strict=True):
        axes.plot(run.grad_norms / run.grad_norms.max(), color=colour, linestyle=dashes, linewidth=1.9, label=name)
    axes.set_yscale("log")
    axes.set_xlim(0, 400)
    axes.set_ylim(1e-12, 10)
    axes.set_xlabel("update (the first 400 of 2,000)")
    axes.set_ylabel("gradient norm / largest")
    figure.legend_above(picture, columns=2)
    figure.save(picture, folder, "l2-grad_norm")
