"""find_lr: what it suggests on curves that are known, and that nothing is left of the sweep."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import lrfast
from lrfast import schedules
from lrfast.lab.digits import MLP, load_digits
from lrfast.lab.training import BATCH, CONTESTANTS, SIZES, train

from arrays import same_bits


def quadratic(curvature, optimizer=lrfast.SGD, **settings):
    """An optimizer at (3, 3) of curvature/2 |p|^2, and that function."""
    p = np.full(2, 3.0)
    return optimizer(p, lr=0.1, **settings), lambda: (curvature / 2 * float(p @ p), curvature * p)


def scripted(losses):
    """A function that returns these losses one after the other, whatever the parameters are."""
    values = iter(losses)
    return lambda: (next(values), np.zeros(3))


# ---- what it finds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", [0.3, 1.0, 37.0])
def test_edge_of_gradient_descent_is_two_over_the_curvature(curvature):
    opt, f = quadratic(curvature)
    sweep = lrfast.find_lr(opt, f, 1e-3, 100.0, 60)
    spacing = sweep.lrs[1] / sweep.lrs[0]
    assert 2 / curvature / spacing <= sweep.edge <= 2 / curvature
    assert 0 < sweep.suggestion <= sweep.edge / 2
    assert "diverged" in sweep.reason
    assert len(sweep.lrs) == len(sweep.losses) < 60


CLASSES = [cls for cls in lrfast.optim.all_optimizers() if cls is not lrfast.Rprop]


@pytest.mark.parametrize("cls", CLASSES)
def test_a_bracket_of_decades_suggests_nothing(cls):
    for steps in [*range(2, 13), 20, 50, 100]:
        opt, f = quadratic(1.0, cls)
        sweep = lrfast.find_lr(opt, f, 1e-7, 10.0, steps)
        apart = 1e8 ** (1 / (steps - 1))
        if apart > 11:
            assert math.isnan(sweep.suggestion), (steps, sweep)
            found = "did not fall clearly, and no update was unstable" not in sweep.reason
            assert found == (f"a factor of {apart:.2g} apart, try steps=9 or more" in sweep.reason)
        else:
            assert "try steps" not in sweep.reason
            assert math.isnan(sweep.suggestion) or sweep.suggestion in (*sweep.lrs, sweep.edge / 2)
            assert not sweep.suggestion > sweep.edge / 2


def test_what_is_suggested_for_a_quadratic_is_near_its_best_step():
    for steps in range(2, 101):
        opt, f = quadratic(1.0)
        sweep = lrfast.find_lr(opt, f, 1e-7, 10.0, steps)
        assert math.isnan(sweep.suggestion) == (steps < 9), steps
        assert steps < 9 or 0.05 <= sweep.suggestion <= 1.0, steps  # 1 / curvature is the best


def test_few_steps_suffice_over_few_decades():
    opt, f = quadratic(1.0)
    sweep = lrfast.find_lr(opt, f, 0.5, 5.0, 2)
    assert sweep.suggestion == sweep.edge / 2 == 0.25


def test_rprop_has_no_rate_to_find():
    opt = lrfast.Rprop(p := np.ones(2))
    with pytest.raises(ValueError, match="expected an optimizer whose updates depend on lr; that of Rprop is only"):
        lrfast.find_lr(opt, lambda: (float(p @ p), 2 * p))
    assert np.array_equal(p, [1, 1])


def test_edge_of_heavy_ball_is_higher():
    opt, f = quadratic(37.0, momentum=0.9)
    sweep = lrfast.find_lr(opt, f, 1e-4, 10.0, 100)
    assert 2 * 1.9 / 37 / 1.3 <= sweep.edge <= 2 * 1.9 / 37 * 1.3


def test_maximizing_the_negative_is_minimizing():
    opt, f = quadratic(5.0)
    mirrored, g = quadratic(-5.0, maximize=True)
    down, up = lrfast.find_lr(opt, f, 1e-3), lrfast.find_lr(mirrored, g, 1e-3)
    assert (up.suggestion, up.edge, up.reason) == (down.suggestion, down.edge, down.reason)
    np.testing.assert_array_equal(up.losses, -down.losses)


def test_steepest_fall_is_against_the_logarithm():
    # Falls fastest at lr = 1e-3 against log(lr); against lr itself that would be more than ten times lower.
    lrs = np.geomspace(1e-7, 10, 161)
    losses = 1 + 2 / (1 + (lrs / 1e-3) ** 0.8)
    sweep = lrfast.find_lr(lrfast.SGD(np.zeros(3)), scripted([3.0, *losses]), steps=161)
    assert sweep.suggestion == pytest.approx(1e-3, rel=0.2)
    np.testing.assert_allclose(sweep.lrs, lrs)
    np.testing.assert_array_equal(sweep.losses, losses)


def test_smoothing_does_not_start_at_zero():
    sweep = lrfast.find_lr(lrfast.SGD(np.zeros(3)), scripted([2.5] * 41), steps=40)
    np.testing.assert_allclose(sweep.smoothed, 2.5, rtol=1e-12)
    assert math.isnan(sweep.suggestion)
    assert "did not fall" in sweep.reason


@pytest.mark.parametrize("seed", range(10))
def test_noise_suggests_nothing(seed):
    losses = 3 + np.random.default_rng(seed).standard_normal(101) / 3
    sweep = lrfast.find_lr(lrfast.SGD(np.zeros(3)), scripted(losses))
    assert math.isnan(sweep.suggestion)
    assert len(sweep.lrs) == 100


def test_noise_does_not_hide_a_fall():
    lrs = np.geomspace(1e-7, 10, 100)
    losses = 1 + 2 / (1 + (lrs / 1e-3)) + 0.2 * np.random.default_rng(0).standard_normal(100)
    sweep = lrfast.find_lr(lrfast.SGD(np.zeros(3)), scripted([3.0, *losses]))
    assert 2e-4 < sweep.suggestion < 5e-3


def test_a_single_bad_batch_is_not_the_steepest_fall():
    lrs = np.geomspace(1e-7, 10, 161)
    losses = 1 + 2 / (1 + (lrs / 1e-3) ** 0.4)
    losses[30] += 1.0
    sweep = lrfast.find_lr(lrfast.SGD(np.zeros(3)), scripted([3.0, *losses]), steps=161)
    assert sweep.suggestion == pytest.approx(1e-3, rel=0.3)


def test_half_the_edge_where_the_loss_gives_no_limit():
    # A loss that stays where it is beside a gradient that turns back: at the bottom of a valley.
    p = np.full(2, 3.0)
    sweep = lrfast.find_lr(lrfast.SGD(p), lambda: (1.0, 5.0 * p), 1e-3, 1.0)
    assert sweep.suggestion == sweep.edge / 2
    assert "half" in sweep.reason


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam"])
def test_suggestion_trains_digits_well(name):
    contestant = next(c for c in CONTESTANTS if c.name == name)
    digits, model, rng = load_digits(seed=0), MLP(SIZES, seed=0), np.random.default_rng(0)
    opt = contestant.make(model.params, model.grads, lambda t: 0.0)

    def loss():
        batch = rng.choice(len(digits.train_labels), BATCH, replace=False)
        return model.loss(digits.train_images[batch], digits.train_labels[batch])

    with threadpool_limits(limits=1, user_api="blas"):
        sweep = lrfast.find_lr(opt, loss)
    history = train(replace(contestant, lr=sweep.suggestion), digits, epochs=12, seed=0, after_epoch=int)
    assert history.test_accuracy[-1] >= 0.95
    assert contestant.lr / 6 < sweep.suggestion < contestant.lr * 6


# ---- how it sweeps ---------------------------------------------------------------------------------------------


def test_groups_keep_their_ratios_and_schedules_give_way():
    a, b = np.zeros(1), np.zeros(1)
    halving = schedules.exponential(2e-3, 0.5)
    opt = lrfast.SGD([{"params": [a], "lr": 5e-4}, {"params": [b], "lr": halving}])
    opt.step([np.ones(1), np.ones(1)])  # the next update would have lr 5e-4 and 1e-3
    seen = []

    def f():
        seen.append((a[0], b[0]))
        return 1.0, [np.ones(1), np.ones(1)]

    sweep = lrfast.find_lr(opt, f, 1e-3, 1.0, 7)
    moves = -np.diff(np.array(seen), axis=0)
    np.testing.assert_allclose(moves[:, 1], sweep.lrs, rtol=1e-12)
    np.testing.assert_allclose(moves[:, 0], sweep.lrs / 2, rtol=1e-12)
    np.testing.assert_allclose(sweep.lrs, np.geomspace(1e-3, 1.0, 7))
    assert opt.schedules[1]["lr"] is halving
    before = b[0]
    opt.step([np.ones(1), np.ones(1)])
    assert before - b[0] == pytest.approx(1e-3)


def test_other_schedules_go_on():
    seen = []

    def momentum(t):
        seen.append(t)
        return 0.5

    opt = lrfast.SGD(np.zeros(3), momentum=momentum)
    for _ in range(4):
        opt.step(np.ones(3))
    seen.clear()
    lrfast.find_lr(opt, scripted([1.0] * 6), steps=5)
    assert seen[:5] == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "answer", [lambda loss: loss, lambda loss: (loss, None), np.float32], ids=["loss", "pair", "scalar"]
)
def test_bound_gradients_need_not_be_returned(answer):
    p, g = np.full(2, 3.0), np.zeros(2)

    def f():
        g[...] = 5 * p
        return answer(2.5 * float(p @ p))

    sweep = lrfast.find_lr(lrfast.SGD(p, grads=g), f, 1e-3)
    opt, unbound = quadratic(5.0)
    assert sweep.edge == lrfast.find_lr(opt, unbound, 1e-3).edge
    np.testing.assert_array_equal(g, 0.0)


def test_mappings_of_gradients():
    params = {"w": np.full(2, 3.0), "b": np.full(1, 3.0)}

    def f():
        return 2.5 * sum(float(p @ p) for p in params.values()), {name: 5 * p for name, p in params.items()}

    sweep = lrfast.find_lr(lrfast.SGD(params), f, 1e-3)
    assert 0.4 / 1.1 <= sweep.edge <= 0.4


# ---- what is left of it ----------------------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("end", ["at the end", "error", "at once"])
@pytest.mark.parametrize("bound", [False, True], ids=["given", "bound"])
@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "AdamW"])
def test_everything_is_as_it_was(name, bound, end):
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(n).astype(dtype) for n, dtype in ((7, np.float32), (5, np.float64))]
    grads = [rng.standard_normal(p.shape).astype(p.dtype) for p in params]
    settings = {"lr": schedules.cosine(0.1, 20).warmup(3), **({"momentum": 0.9} if name in ("SGD", "RMSprop") else {})}
    opt = getattr(lrfast, name)(params, **settings, **({"grads": grads} if bound else {}))
    for _ in range(3):
        opt.step(None if bound else grads)
    params[0][0] = -0.0
    twin, before = copy.deepcopy(opt), pickle.dumps(opt.state_dict())
    old_params, old_grads = copy.deepcopy(params), copy.deepcopy(grads)
    calls = []

    def f():
        calls.append(1)
        if end == "error" and len(calls) == 5:
            raise Stop
        own = grads if bound else [np.empty_like(g) for g in grads]
        for g, p in zip(own, params, strict=True):
            g[...] = p - 1
        loss = sum(float(np.sum((p - 1) ** 2)) for p in params)
        return (loss if end != "at once" else 10.0 ** len(calls)), (None if bound else own)

    if end == "error":
        with pytest.raises(Stop):
            lrfast.find_lr(opt, f, steps=20)
    else:
        sweep = lrfast.find_lr(opt, f, steps=20)
        assert ("diverged at 1e-07" in sweep.reason) == (end == "at once")
        assert len(calls) == len(sweep.lrs) + 1
    assert pickle.dumps(opt.state_dict()) == before
    for array, old in zip([*params, *grads], [*old_params, *old_grads], strict=True):
        assert same_bits(array, old)
    assert len(opt.stats) == 0
    opt.step(None if bound else grads)
    twin.step(None if bound else grads)
    for i, group in enumerate(twin.param_groups):
        for param, other in zip(group["params"], opt.param_groups[i]["params"], strict=True):
            assert same_bits(param, other)
    assert opt.updates == twin.updates == 4


def test_averages_copies_and_statistics_are_as_they_were():
    p, g, half = np.full(40, 3.0, np.float32), np.ones(40, np.float32), np.zeros(40, np.float16)
    options = {"ema": 0.5, "copy_to": half, "clip_norm": 100.0, "nonfinite": "raise", "zero_grads": True, "stats": 2}
    opt = lrfast.Adam(p, lr=0.1, grads=g, **options)
    opt.step()
    g[...] = 2.0
    opt.step()
    g[...] = 4.0
    twin = copy.deepcopy(opt)

    def everything():
        stats = {key: repr(row) for key, row in opt.stats.items()}
        return [x.tobytes() for x in (p, g, half, *opt.ema)], stats, opt.report, opt.skipped, opt.stats.updates

    before, seen = everything(), []

    def f():
        seen.append(float(half[0]))
        np.add(g, 2 * (half - 1), out=g)  # as autograd adds up; the model runs on the copy
        return np.mean((half - 1.0) ** 2)

    sweep = lrfast.find_lr(opt, f)
    assert sweep.losses.min() < sweep.losses[0] / 2
    assert len(set(seen)) > 20
    assert everything() == before
    assert (opt.clip_norm, opt.nonfinite, opt.zero_grads) == (100.0, "raise", True)
    for optimizer in (opt, twin):
        optimizer.step()
    assert same_bits(twin.param_groups[0]["params"][0], p)
    assert same_bits(twin.ema[0], opt.ema[0])
    assert same_bits(twin.copy_to[0].astype(np.float32), half.astype(np.float32))
    assert not g.any()


def test_limit_of_heavy_ball_is_that_of_the_measured_update():
    p = np.full(3, 3.0)
    opt = lrfast.SGD(p, lr=0.01, momentum=0.9, stats=True)
    opt.step(5 * p)
    opt.param_groups[0]["lr"] = 0.02
    opt.step(5 * p)
    opt.param_groups[0]["lr"] = 0.04
    assert opt.stats["total"]["sharpness"] == pytest.approx(5)
    assert opt.stats["total"]["sharpness_limit"] == pytest.approx(2 * 1.9 / 0.01)


def test_optimizer_cannot_step_meanwhile():
    opt, f = quadratic(5.0)

    def stepping():
        loss, grads = f()
        opt.step(grads)
        return loss, grads

    with pytest.raises(RuntimeError, match="running"):
        lrfast.find_lr(opt, stepping)
    assert opt.updates == 0
    opt.step(f()[1])  # and can afterwards


# ---- ends and refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_losses_and_gradients_that_are_not_finite(bad):
    make = lambda: lrfast.SGD(np.zeros(3))  # noqa: E731
    sweep = lrfast.find_lr(make(), scripted([bad] * 9), steps=8)
    assert len(sweep.lrs) == 0
    assert math.isnan(sweep.suggestion)
    assert "not finite to begin with" in sweep.reason
    sweep = lrfast.find_lr(make(), scripted([1.0, 1.0, 0.5, bad]), steps=8)
    assert len(sweep.lrs) == 3
    assert len(sweep.smoothed) == 2
    assert "no longer finite" in sweep.reason
    answers = iter([(1.0, np.ones(3)), (0.9, np.full(3, bad))])
    sweep = lrfast.find_lr(make(), lambda: next(answers), steps=8)
    assert sweep.losses.tolist() == [0.9]
    assert "gradient was not finite" in sweep.reason


def test_overflow_in_the_loss_is_no_warning():
    p = np.full(2, 3.0, np.float32)
    sweep = lrfast.find_lr(lrfast.SGD(p), lambda: (np.sum(p * p * p * p), 4 * p * p * p), 1e20, 1e30, 9)
    assert "no longer finite at 1e+20" in sweep.reason


def test_even_the_smallest_is_too_large():
    opt, f = quadratic(5.0)
    sweep = lrfast.find_lr(opt, f, 1.0, 10.0)
    assert math.isnan(sweep.suggestion)
    assert math.isnan(sweep.edge)
    assert "try a smaller lr_min" in sweep.reason
    assert "diverged at 1" in sweep.reason


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"opt": 3}, TypeError, "opt: expected an optimizer"),
        ({"loss_and_grads": 3.0}, TypeError, "loss_and_grads: expected a function"),
        ({"lr_min": 0.0}, ValueError, "0 < lr_min < lr_max"),
        ({"lr_min": 10.0}, ValueError, "0 < lr_min < lr_max"),
        ({"lr_max": math.inf}, ValueError, "lr_max: lr: expected a finite number"),
        ({"lr_max": "1"}, TypeError, "lr_max: lr: expected a finite number"),
        ({"steps": 1}, ValueError, "steps: expected an integer >= 2, got 1"),
        ({"steps": 10.0}, TypeError, "steps: expected an integer >= 2, got 10.0"),
    ],
)
def test_bad_arguments(arguments, error, message):
    opt, f = quadratic(5.0)
    with pytest.raises(error, match=message):
        lrfast.find_lr(**{"opt": opt, "loss_and_grads": f, **arguments})


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (1.0, ValueError, r"expected \(loss, grads\), because no gradients were bound"),
        ((1.0, None), ValueError, r"expected \(loss, grads\)"),
        (("low", np.zeros(2)), TypeError, "expected a number as loss, got 'low'"),
        ((1.0, np.zeros(3)), ValueError, "expected shape"),
    ],
)
def test_bad_answers(answer, error, message):
    opt, _ = quadratic(5.0)
    with pytest.raises(error, match=message):
        lrfast.find_lr(opt, lambda: answer)
    assert opt.updates == 0


def test_ratios_need_a_rate():
    opt = lrfast.SGD([{"params": np.zeros(3), "lr": 0.0}, {"params": np.zeros(3), "lr": 0.0}])
    with pytest.raises(ValueError, match="ratios between groups"):
        lrfast.find_lr(opt, lambda: (1.0, [np.zeros(3)] * 2))


# ---- the picture -----------------------------------------------------------------------------------------------


def test_plot(tmp_path, monkeypatch):
    opt, f = quadratic(5.0)
    sweep = lrfast.find_lr(opt, f)
    sweep.plot(tmp_path / "sweep.svg")
    assert "suggestion" in (tmp_path / "sweep.svg").read_text() or (tmp_path / "sweep.svg").stat().st_size > 10_000
    monkeypatch.delitem(sys.modules, "lrfast.diagnose.figures")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'lrfast\[demo\]'"):
        sweep.plot(tmp_path / "other.png")


def test_only_a_missing_matplotlib_is_called_so(tmp_path, monkeypatch):
    opt, f = quadratic(5.0)
    sweep = lrfast.find_lr(opt, f)
    monkeypatch.setitem(sys.modules, "lrfast.diagnose.figures", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        sweep.plot(tmp_path / "sweep.svg")
    assert caught.value.name == "lrfast.diagnose.figures"
    assert "pip install" not in str(caught.value)


def test_bound_gradients_may_be_read_only():
    param, memory, copy = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2, "f")
    grad = memory.view()
    grad.flags.writeable = False
    opt = lrfast.SGD(param, lr=0.1, grads=grad, copy_to=copy)

    def loss_and_grads():
        memory[...] = 3.0 * param
        return 1.5 * float(param @ param), None

    lrfast.find_lr(opt, loss_and_grads, lr_min=1e-4, lr_max=10, steps=20)
    assert np.array_equal(param, [1.0, -2.0])
    assert np.array_equal(copy, param)
