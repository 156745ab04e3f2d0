"""L2: most trainings end before any critical point; gradient norm and curvature tell the cases apart."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path

import lrfast
from lrfast.diagnose.verdict import Verdict

from . import drawing
from .descent import Descent, descend
from .lesson import Lesson, number, pictures
from .surface import LONG_BOWL, SADDLE, bowl

__all__ = ["lesson", "runs", "verdict"]

UPDATES = 2_000
_EVIDENCE = {  # of the Monitor, in the words of the page; each kind of verdict has some of them
    "grad_norm": "gradient norm",
    "grad_norm_before": "before",
    "cosine": "cosine",
    "smallest": "smallest curvature",
    "largest": "largest",
}


@cache
def runs() -> dict[str, Descent]:
    """Four runs of 2,000 updates by the verdict that is right for each."""
    return {
        "bouncing": descend(LONG_BOWL, lrfast.SGD, UPDATES, lr=0.01, monitored=True),
        "crawling": descend(LONG_BOWL, lrfast.SGD, UPDATES, lr=1e-7, monitored=True),
        "minimum": descend(bowl(1.0, 2.0), lrfast.SGD, UPDATES, lr=0.1, monitored=True),
        "saddle": descend(SADDLE, lrfast.SGD, UPDATES, lr=0.1, start=(-5.0, 0.0), monitored=True),
    }


def verdict(run: Descent) -> Verdict:
    """That of the Monitor on a monitored run. Raises ValueError if no Monitor followed it."""
    if run.monitor is None:
        raise ValueError("verdict: expected a run with monitored=True, got one without a Monitor")
    return run.monitor.verdict(gradient=run.surface.gradient)


def lesson(folder: Path) -> Lesson:
    """Draws into the folder."""
    verdicts = {expected: verdict(run) for expected, run in runs().items()}
    _draw(folder)
    right = sum(found.kind == expected for expected, found in verdicts.items())
    shown = pictures(["l2-grad_norm"], "Norm of the gradient relative to its largest: two runs end far above zero.")
    return Lesson(
        name="L2",
        title="Stuck: but where?",
        claim="Most trainings end before they reach any critical point. The gradient norm tells whether they did, and "
        "the curvature then tells a minimum from a saddle.",
        measured=f"{right} of {len(verdicts)} runs with a known answer get the right verdict",
        holds=right == len(verdicts),
        body=f"""
<p>Four runs of {UPDATES:,} updates of gradient descent, each with a known answer, and what <code>lrfast.Monitor</code>
says of them: it follows a run step by step, and <code>monitor.verdict(gradient=...)</code> judges it. Look at the norm
of the gradient first: in the first two it is not small, so there is no critical point, however flat the loss looks.
The cosine of the gradient with the last update then tells a rate too large (near 1: each update jumps past the lowest
point on its way) from a rate too small (near &minus;1: it still goes straight downhill). If the norm is small, look at
the curvatures (the eigenvalues of the Hessian): all positive at a minimum, one of them negative at a saddle.</p>
<div class="scroll"><table class="words"><thead><tr><th scope="col">answer</th><th scope="col">verdict</th>
<th scope="col">evidence</th><th scope="col">in words</th></tr></thead>
<tbody>{"".join(_row(expected, found) for expected, found in verdicts.items())}</tbody></table></div>
{shown}""",
    )


def _row(expected: str, found: Verdict) -> str:
    evidence = ", ".join(
        f"{words} {number(found.evidence[key])}" for key, words in _EVIDENCE.items() if key in found.evidence
    )
    return (
        f'<tr><th scope="row">{expected}</th><td data-label="verdict">{found.kind}</td>'
        f'<td data-label="evidence">{evidence}</td><td data-label="in words">{escape(found.text)}</td></tr>'
    )


def _draw(folder: Path) -> None:
    picture, axes = drawing.new(legend=2)
    for (name, run), colour, dashes in zip(runs().items(), drawing.COLOURS, ("-", "--", "-", "--"), strict=True):
        axes.plot(run.grad_norms / run.grad_norms.max(), color=colour, linestyle=dashes, linewidth=1.9, label=name)
    axes.set_yscale("log")
    axes.set_xlim(0, 400)
    axes.set_ylim(1e-12, 10)
    axes.set_xlabel("update (the first 400 of 2,000)")
    axes.set_ylabel("gradient norm / largest")
    drawing.legend_above(picture, columns=2)
    drawing.save(picture, folder, "l2-grad_norm")
