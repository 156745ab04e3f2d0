"""Verdicts on runs with a known answer, without and with noise, in other units, and on real data."""

from __future__ import annotations

from collections import Counter
from functools import cache, partial

import numpy as np
import pytest
from runs import BOWL, HILLY, START, Quadratic, follow, rosenbrock, walls
from threadpoolctl import threadpool_limits

import lrfast
from lrfast import SGD, Adagrad, Adam, RMSprop, schedules
from lrfast.diagnose.verdict import CURES, judge
from lrfast.lab.digits import MLP, load_digits
from lrfast.lab.training import SIZES

import drawn

SMALL = [1.0, 10.0]
AWAY = [3.0, -4.0]


def nan_after_50(problem):
    calls = iter(range(1_000_000))

    def spoilt(p):
        loss, gradient = problem(p)
        return loss, gradient * (np.nan if next(calls) >= 50 else 1)

    return spoilt


def straight_down(p):
    return -float(p.astype(np.float64).sum()), np.full_like(p, -1)


def uphill(p):
    loss, gradient = Quadratic(SMALL)(p)
    return loss, -gradient


# kind, problem, start, steps, optimizer, options
CERTAIN = {
    "bouncing: the lecture's bowl": ("bouncing", Quadratic(BOWL), START, 1200, SGD, dict(lr=0.01)),
    "bouncing: young": ("bouncing", Quadratic(BOWL), START, 30, SGD, dict(lr=0.01)),
    "bouncing: momentum": ("bouncing", Quadratic(BOWL), START, 500, SGD, dict(lr=0.019, momentum=0.9)),
    "bouncing: between walls": ("bouncing", walls, np.linspace(1, 3, 20), 500, SGD, dict(lr=10.0)),
    "bouncing: walls, momentum": ("bouncing", walls, np.linspace(1, 3, 20), 500, SGD, dict(lr=10.0, momentum=0.9)),
    "bouncing: walls, Adam": ("bouncing", walls, np.linspace(1, 3, 20), 1000, Adam, dict(lr=10.0)),
    "crawling: the lecture's bowl": ("crawling", Quadratic(BOWL), START, 1200, SGD, dict(lr=1e-7)),
    "crawling: young": ("crawling", Quadratic(BOWL), START, 30, SGD, dict(lr=1e-7)),
    "crawling: long": ("crawling", Quadratic(BOWL), START, 3100, SGD, dict(lr=1e-7)),
    "crawling: the flat direction": ("crawling", Quadratic(BOWL), START, 1200, SGD, dict(lr=0.009)),
    "crawling: only the flat one left": ("crawling", Quadratic([0.05, 200.0]), START, 300, SGD, dict(lr=0.009)),
    "crawling: Adam": ("crawling", Quadratic(SMALL), AWAY, 100, Adam, dict(lr=1e-6)),
    "descending: SGD": ("descending", Quadratic(SMALL), AWAY, 60, SGD, dict(lr=0.02)),
    "descending: overshooting": ("descending", Quadratic(SMALL), AWAY, 20, SGD, dict(lr=0.18)),
    "descending: momentum": ("descending", Quadratic(SMALL), AWAY, 50, SGD, dict(lr=0.003, momentum=0.9)),
    "descending: Adam": ("descending", Quadratic(SMALL), AWAY, 200, Adam, dict(lr=0.01)),
    "descending: maximize": ("descending", Quadratic([-1.0, -10.0]), AWAY, 60, SGD, dict(lr=0.02, maximize=True)),
    "descending: valley": ("descending", rosenbrock, [-1.5, 2.5], 3000, SGD, dict(lr=1e-3)),
    "descending: valley, Adam": ("descending", rosenbrock, [-1.5, 2.5], 1000, Adam, dict(lr=0.01)),
    "descending: valley, RMSprop": ("descending", rosenbrock, [-1.5, 2.5], 1500, RMSprop, dict(lr=1e-3, alpha=0.9)),
    "descending: off a saddle": ("descending", Quadratic([1.0, -1.0]), [3.0, 1e-6], 200, SGD, dict(lr=0.1)),
    "critical: minimum": ("critical", Quadratic(SMALL), AWAY, 1000, SGD, dict(lr=0.05)),
    "critical: float32": ("critical", Quadratic(SMALL, centre=1.0), np.float32(AWAY), 1000, SGD, dict(lr=0.05)),
    "critical: minimum, Adam": ("critical", Quadratic(SMALL), AWAY, 2000, Adam, dict(lr=0.01)),
    "critical: saddle": ("critical", Quadratic([1.0, -1.0]), [3.0, 0.0], 200, SGD, dict(lr=0.1)),
    "critical: no gradient at all": ("critical", Quadratic([0.0, 0.0]), AWAY, 50, Adam, dict(lr=0.1)),
    "exploded: diverging": ("exploded", Quadratic([0.1, 100.0]), START, 60, SGD, dict(lr=0.024)),
    "crawling: no rate": ("crawling", Quadratic(SMALL), AWAY, 60, SGD, dict(lr=0.0)),
    "nonfinite: gradients": ("nonfinite", nan_after_50(Quadratic(SMALL)), AWAY, 60, SGD, dict(lr=0.01)),
    "nonfinite: overflow": ("nonfinite", Quadratic(BOWL), START, 1000, SGD, dict(lr=0.02)),
    "lost_updates": ("lost_updates", straight_down, np.full(10, 1e8, np.float32), 300, SGD, dict(lr=1.0)),
    "mismatch: wrong sign": ("mismatch", uphill, AWAY, 30, SGD, dict(lr=0.005)),
    "mismatch: decay": ("mismatch", Quadratic(SMALL, centre=1.0), AWAY, 2000, lrfast.AdamW,
                        dict(lr=0.03, betas=(0.9, 0.99), weight_decay=2.0)),
    "too_few": ("too_few", Quadratic(BOWL), START, 3, SGD, dict(lr=0.01)),
}  # fmt: skip


@cache
def certain(name):
    """The Monitor of a run; what it has recorded serves all tests of it."""
    _, problem, start, steps, cls, options = CERTAIN[name]
    with np.errstate(all="ignore"):  # runs that overflow
        return follow(problem, start, steps, cls, **options)


@pytest.mark.parametrize("name", CERTAIN)
def test_certain(name):
    verdict, kind = certain(name).verdict(), CERTAIN[name][0]
    assert verdict.kind == kind, verdict
    assert verdict.cure == CURES[kind]
    assert str(verdict) == f"{kind}: {verdict.text} {verdict.cure}"
    assert all(type(value) is float for value in verdict.evidence.values())


# Whose drift, a thousand times larger, is more than half a promised step.
DRIFTING = {"bouncing: walls, Adam", "mismatch: decay"}
UNITS = [(name, factor, 0.0) for name in CERTAIN for factor in (1000.0, 0.1) if factor < 1 or name not in DRIFTING]
UNITS += [(name, 1.0, shift) for name in CERTAIN for shift in (100.0, -100.0)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "factor", "shift"), UNITS)
def test_the_unit_of_the_loss_does_not_matter(name, factor, shift):
    rows = [row | {"loss": factor * row["loss"] + shift} for row in certain(name).records]
    verdict = judge(rows, maximize=CERTAIN[name][-1].get("maximize", False))
    assert verdict.kind == CERTAIN[name][0], verdict


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("name", ["bouncing: the lecture's bowl", "crawling: young", "descending: SGD",
                                  "critical: saddle", "exploded: diverging"])  # fmt: skip
def test_the_unit_of_loss_and_gradient_does_not_matter(name, scale):
    kind, problem, start, steps, cls, options = CERTAIN[name]
    scaled = Quadratic(problem.h, scale=scale)
    assert follow(scaled, start, steps, cls, **(options | {"lr": options["lr"] / scale})).verdict().kind == kind


@pytest.mark.parametrize("steps", [720, 730, 800, 1000])
def test_the_burst_of_the_lecture(steps):
    bowl = Quadratic([0.01, 100.0])
    verdict = follow(bowl, START, steps, Adagrad, lr=0.1, accumulate="mean", eps=0.0).verdict()
    assert verdict.kind == "exploded"
    assert 710 <= verdict.evidence["burst_step"] <= 725
    assert verdict.evidence["rate_at_burst"] > verdict.evidence["rate_before"]
    assert ("has come back" in verdict.text) == (steps > 720)


def test_no_burst_with_decay():
    bowl = Quadratic([0.01, 100.0])
    monitor = follow(bowl, START, 1000, Adagrad, lr=schedules.inverse_sqrt(0.1), accumulate="mean", eps=0.0)
    assert monitor.verdict().kind in ("descending", "crawling", "critical")


NOISY = {
    "noise: SGD": ("noise", dict(grad_noise=1.0), 1200, SGD, dict(lr=0.05)),
    "noise: momentum": ("noise", dict(grad_noise=1.0), 1200, SGD, dict(lr=0.005, momentum=0.9)),
    "noise: Adam": ("noise", dict(grad_noise=1.0), 1200, Adam, dict(lr=0.05)),
    "noise: two parameters": ("noise", dict(grad_noise=1.0, h=[0.5, 2.0]), 1200, SGD, dict(lr=0.05)),
    "crawling: SGD": ("crawling", dict(grad_noise=1.0), 500, SGD, dict(lr=1e-6)),
    "crawling: mostly noise": ("crawling", dict(grad_noise=10.0), 500, SGD, dict(lr=1e-6)),
    "crawling: Adam": ("crawling", dict(grad_noise=1.0), 500, Adam, dict(lr=1e-6)),
    "descending: SGD": ("descending", dict(grad_noise=1.0), 150, SGD, dict(lr=0.01)),
    "descending: momentum": ("descending", dict(grad_noise=1.0), 150, SGD, dict(lr=0.001, momentum=0.9)),
    "descending: Adam": ("descending", dict(grad_noise=1.0), 200, Adam, dict(lr=0.01)),
    "bouncing: SGD": ("bouncing", dict(grad_noise=1.0), 1000, SGD, dict(lr=0.196)),
    "bouncing: two parameters": ("bouncing", dict(grad_noise=1.0, h=[0.5, 2.0]), 1000, SGD, dict(lr=0.97)),
}


SEEDS = 20


@cache
def noisy(name, seed):
    """Records of a run, and the loss of each step's batch, which the records have as that of all data."""
    _, noise, steps, cls, options = NOISY[name]
    problem = Quadratic(seed=seed, **{"h": HILLY, **noise})
    losses, rng = [], np.random.default_rng(SEEDS + seed)

    def noted(p):
        loss, gradient = problem(p)
        losses.append(loss + (gradient - problem.h * p) @ p + rng.standard_normal())
        return loss, gradient

    return follow(noted, np.full(len(problem.h), 3.0), steps, cls, **options).records, losses


@pytest.mark.matrix(3)
@pytest.mark.parametrize("name", NOISY)
def test_noisy(name, request):
    """At most one of twenty seeds is judged wrongly; a run takes five of them."""
    whole = request.config.getoption("--whole")
    runs = [noisy(name, seed) for seed in (range(SEEDS) if whole else range(drawn.number() % 4, SEEDS, 4))]
    of_all_data = Counter(judge(rows).kind for rows, _ in runs)
    assert of_all_data[NOISY[name][0]] >= len(runs) - 1, of_all_data
    of_batches = [[row | {"loss": losses[row["update"] - 1]} for row in rows] for rows, losses in runs]
    kinds = Counter(judge(rows).kind for rows in of_batches)
    assert kinds[NOISY[name][0]] >= len(runs) - 1, kinds


ALL = 1437


def late(lr, then, t):
    return lr if t <= 150 else then


# Far inside their kinds: another BLAS rounds differently, and no verdict may hang on that. Signs alone (alpha = 0) make
# every element jump to and fro; half of the labels drawn anew in each batch leave a floor that cannot be learnt away.
# kind, steps, batch, share of wrong labels, optimizer, options
DIGITS = {
    "descending": ("descending", 100, 32, 0.0, SGD, dict(lr=0.1)),
    "descending: Adam": ("descending", 100, 32, 0.0, Adam, dict(lr=0.001)),
    "descending: all data": ("descending", 100, ALL, 0.0, SGD, dict(lr=0.1)),
    "bouncing: all data": ("bouncing", 200, ALL, 0.0, RMSprop, dict(lr=0.01, alpha=0.0)),
    "noise: wrong labels": ("noise", 1000, 32, 0.5, SGD, dict(lr=0.2)),
    "noise: wrong labels, Adam": ("noise", 1000, 32, 0.5, Adam, dict(lr=0.005)),
    "crawling": ("crawling", 300, 32, 0.0, SGD, dict(lr=1e-5)),
    "crawling: Adam": ("crawling", 300, 32, 0.0, Adam, dict(lr=1e-7)),
    "exploded: at once": ("exploded", 60, 32, 0.0, RMSprop, dict(lr=1.0)),
    "exploded: late": ("exploded", 200, 32, 0.0, Adam, dict(lr=partial(late, 0.001, 0.3))),
}


def train(steps, batch, wrong, cls, options, seed):
    digits, model = load_digits(seed), MLP(SIZES, seed)
    optimizer = cls(model.params, grads=model.grads, **options)
    monitor, rng = lrfast.Monitor(optimizer), np.random.default_rng(seed)
    for _ in range(steps):
        chosen = slice(None) if batch == ALL else rng.choice(ALL, batch, replace=False)
        labels = digits.train_labels[chosen]
        if wrong:
            labels = np.where(rng.random(batch) < wrong, rng.integers(10, size=batch), labels)
        loss = model.loss(digits.train_images[chosen], labels)
        optimizer.step()
        monitor.update(loss)
    return monitor


@pytest.mark.matrix(5)
@pytest.mark.parametrize("seed", [100, 101, 102])
@pytest.mark.parametrize(("kind", "steps", "batch", "wrong", "cls", "options"), DIGITS.values(), ids=DIGITS)
def test_digits(kind, steps, batch, wrong, cls, options, seed):
    with threadpool_limits(limits=1, user_api="blas"):  # threads gain nothing in products this small
        verdict = train(steps, batch, wrong, cls, options, seed).verdict()
    assert verdict.kind == kind, verdict


def test_nothing_is_too_few():
    assert judge([]).kind == "too_few"


def test_a_single_bad_step_is_forgiven():
    rows = follow(Quadratic(SMALL), AWAY, 60, lr=0.02).records
    rows[30] = rows[30] | {"loss": np.nan, "grad_norm": np.inf}
    assert judge(rows).kind == "descending"
    assert judge(rows[:31]).kind == "nonfinite"
    for row in rows[31::2]:
        row["skipped"] = True
    assert judge(rows[:-1]).kind == "nonfinite"
