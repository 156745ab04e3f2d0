"""What the numbers of optimizer.stats mean, on a quadratic where each of them is known otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest

import lrfast

from variants import VARIANTS, taken

CURVATURE = np.array([0.5, 3.0, 40.0, 7.0])


def descend(variant, *, steps=6, options=None, **settings):
    """(optimizer, gradients, updates without decoupled decay): of each step on L = sum CURVATURE p^2 / 2."""
    param = np.array([1.0, -2.0, 0.5, 3.0])
    settings = {**taken(VARIANTS[variant].cls, {"weight_decay": 0.0, "lambd": 0.0}), **settings}
    optimizer = VARIANTS[variant].make([param], **settings, **(options or {"stats": True}))
    sign = -1 if VARIANTS[variant].settings.get("maximize") else 1
    grads, moves = [], []
    for _ in range(steps):
        grads.append(CURVATURE * param)
        before = param.copy()
        optimizer.step([sign * grads[-1]])
        moves.append(param - before)
    return optimizer, grads, moves


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_number_on_a_quadratic(variant):
    settings = {"lr": 0.01}
    optimizer, grads, moves = descend(variant, **settings)
    found = optimizer.stats["total"]
    s, d, before = grads[-1], moves[-1], moves[-2]
    close = lambda x: pytest.approx(x, rel=1e-9)  # noqa: E731
    assert found["elements"] == 4
    assert found["grad_norm"] == close(np.linalg.norm(s))
    assert found["param_norm"] == close(np.linalg.norm(s / CURVATURE))
    assert found["update_norm"] == close(np.linalg.norm(d))
    assert found["update_ratio"] == close(np.linalg.norm(d) / np.linalg.norm(s / CURVATURE))
    assert found["grad_max"] == close(np.abs(s).max())
    assert found["update_max"] == close(np.abs(d).max())
    assert found["dot"] == close(s @ d)
    assert found["cosine"] == close(s @ before / np.linalg.norm(s) / np.linalg.norm(before))
    assert found["bounce"] == np.mean(s * before > 0)
    sharpness = before @ (CURVATURE * before) / (before @ before)
    assert found["sharpness"] == pytest.approx(sharpness, rel=1e-7)
    along = grads[-2] @ before
    assert found["minimum"] == pytest.approx(-along / (sharpness * (before @ before)), rel=1e-7)
    assert all(np.array_equal(found[key], value, equal_nan=True) for key, value in optimizer.stats[0].items())
    assert found["nan"] == found["inf"] == found["zero"] == found["lost"] == 0
    assert found["rates"].sum() == 4
    assert found["rate_median"] <= 2 * found["rate_max"]


def test_sharpness_limits():
    optimizer, _, _ = descend("sgd", lr=0.01)
    assert optimizer.stats["total"]["sharpness_limit"] == pytest.approx(200, rel=1e-9)
    optimizer, _, _ = descend("momentum", lr=0.01, dampening=0.0)
    assert optimizer.stats["total"]["sharpness_limit"] == pytest.approx(380, rel=1e-9)
    optimizer, grads, moves = descend("adam", lr=0.01)
    assert optimizer.stats["total"]["sharpness_limit"] == pytest.approx(
        -2 * grads[-2] @ moves[-2] / (moves[-2] @ moves[-2]), rel=1e-9
    )


def test_limits_of_several_groups():
    """The least of them; of rules that have none, what the latest move says."""
    for momentum in (0.9, 0.0):
        groups = [{"params": np.ones(2), "lr": 0.01}, {"params": np.ones(2), "lr": 0.1}]
        optimizer = lrfast.SGD(groups, momentum=momentum, stats=True)
        for t in range(3):
            optimizer.step([np.full(2, 0.5 + t), np.full(2, 0.5 - t)])
        limit = optimizer.stats["total"]["sharpness_limit"]
        if momentum:
            assert limit == pytest.approx(2 * 1.9 / 0.1, rel=1e-9)
        else:
            assert math.isfinite(limit)


def test_effective_rates_and_samples_seen():
    optimizer, _, _ = descend("adam", lr=0.01)
    state = optimizer.state[0]
    rates = 0.01 / (np.sqrt(state["exp_avg_sq"] / (1 - 0.999**6)) + 1e-8)
    found = optimizer.stats["total"]
    assert found["rate_max"] == pytest.approx(rates.max(), rel=1e-9)
    assert np.array_equal(found["rates"], np.bincount(np.floor(np.log2(rates)).astype(int) + 32, minlength=64))
    assert found["n_eff"] == pytest.approx(1.999 / 0.001 * (1 - 0.999**6) / (1 + 0.999**6))
    assert descend("adagrad-mean")[0].stats["total"]["n_eff"] == 6
    sgd = descend("sgd", lr=0.01)[0].stats["total"]
    assert sgd["rate_max"] == 0.01
    assert math.isnan(sgd["n_eff"])


def test_what_is_rare_is_counted():
    param = np.full(5000, 1e8, np.float32)
    optimizer = lrfast.SGD(param, lr=1.0, stats=True)
    grad = np.ones(5000, np.float32)
    grad[[0, 4000]], grad[1], grad[2], grad[4999] = np.nan, np.inf, -np.inf, 0
    grad[10:20] = 1000
    optimizer.step(grad)
    found = optimizer.stats["total"]
    assert (found["nan"], found["inf"], found["zero"]) == (2, 2, 1)
    assert found["lost"] == 5000 - 2 - 2 - 1 - 10
    adam = lrfast.Adam(np.ones(3000), eps=1.0, stats=True)
    adam.step(np.where(np.arange(3000) < 1000, 10.0, 0.1))
    assert adam.stats["total"]["eps_dominates"] == 2 / 3


@pytest.mark.parametrize("variant", ["sgd", "momentum", "nesterov", "rmsprop", "adamw"])
def test_every_third_update_measured_says_the_same(variant):
    rarely = descend(variant, options={"stats": 3}, lr=0.01)[0]
    always = descend(variant, lr=0.01)[0]
    assert rarely.stats.updates == 6
    for key, value in always.stats["total"].items():
        assert np.array_equal(rarely.stats["total"][key], value, equal_nan=True), key
    in_between = descend(variant, steps=8, options={"stats": 3}, lr=0.01)[0]
    assert in_between.stats.updates == 6
    assert in_between.stats["total"]["grad_norm"] == always.stats["total"]["grad_norm"]
    assert in_between.stats["total"]["cosine"] == always.stats["total"]["cosine"]


def test_measured_before_there_is_anything_to_compare_with():
    optimizer, _, _ = descend("adam", steps=1)
    for key in ("cosine", "bounce", "sharpness", "sharpness_limit", "minimum"):
        assert math.isnan(optimizer.stats["total"][key])


def test_a_skipped_tensor_is_not_in_the_total():
    params = [np.ones(3), np.ones(3)]
    optimizer = lrfast.SGD(params, stats=True)
    optimizer.step([np.ones(3), np.full(3, 7.0)])
    optimizer.step([np.full(3, 2.0), None])
    assert optimizer.stats["total"]["elements"] == 3
    assert optimizer.stats["total"]["cosine"] == pytest.approx(-1)
    assert optimizer.stats[1]["elements"] == 0


def test_norms_alone():
    optimizer, grads, _ = descend("adamw", options={"stats": "norms"})
    assert optimizer.stats["total"]["grad_norm"] == pytest.approx(np.linalg.norm(grads[-1]))
    assert math.isnan(optimizer.stats["total"]["bounce"])


def test_switched_on_and_off():
    grad = np.ones(3)
    optimizer = lrfast.Adam(np.ones(3))
    assert len(optimizer.stats) == 0
    with pytest.raises(KeyError, match="off"):
        optimizer.stats["total"]
    optimizer.step(grad)
    optimizer.stats = True
    with pytest.raises(KeyError, match="no step"):
        optimizer.stats["total"]
    optimizer.step(grad)
    assert list(optimizer.stats) == ["total", 0]
    with pytest.raises(KeyError, match="'total' or a number"):
        optimizer.stats[1]
    optimizer.stats = False
    optimizer.step(grad)
    assert len(optimizer.stats) == 0


def test_statistics_do_not_change_the_step():
    plain = descend("amsgrad", options={"stats": False})[0]
    measured = descend("amsgrad")[0]
    assert np.array_equal(plain.param_groups[0]["params"][0], measured.param_groups[0]["params"][0])


def test_a_checkpoint_ends_the_comparison():
    optimizer, grads, _ = descend("sgd")
    optimizer.load_state_dict(optimizer.state_dict())
    assert len(optimizer.stats) == 0
    optimizer.step([grads[-1]])
    assert math.isnan(optimizer.stats["total"]["cosine"])


def compared(make, edit, steps=8):
    """(cosine, the same from the moves themselves) of each step from the second on; edit(optimizer, t) comes before."""
    found = []
    for isa in lrfast.available_isas():
        param = np.array([1.0, -2.0, 0.5, 3.0])
        optimizer = make(param)
        moves = []
        with lrfast.use_isa(isa):
            for t in range(steps):
                edit(optimizer, t)
                grad, before = CURVATURE * param, param.copy()
                optimizer.step(grad)
                moves.append(param - before)
                if t > 0:
                    exact = grad @ moves[-2] / np.linalg.norm(grad) / np.linalg.norm(moves[-2])
                    found.append((optimizer.stats["total"]["cosine"], exact))
    return found


def test_settings_of_the_step_before_are_what_counts():
    """The update before is the one that was made, whatever was edited since."""

    def nesterov(optimizer, t):
        optimizer.param_groups[0]["nesterov"] = t in (3, 4)

    def eps(optimizer, t):
        optimizer.param_groups[0]["eps"] = 10.0 if t == 4 else 1e-8

    cases = [
        (lambda p: lrfast.SGD(p, lr=0.01, momentum=0.9, stats=True), nesterov),
        (lambda p: lrfast.Adam(p, lr=0.1, stats=True), eps),
        (lambda p: lrfast.Adam(p, lr=lambda t: 0.1 / (t + 1), stats=True), lambda optimizer, t: None),
        (lambda p: lrfast.Adam(p, betas=(0.9, lambda t: 0.9 + t / 100), stats=True), lambda optimizer, t: None),
    ]
    for make, edit in cases:
        for cosine, exact in compared(make, edit):
            assert cosine == pytest.approx(exact, rel=1e-9)


def test_clipped_heavy_ball_has_no_limit_by_its_settings():
    optimizer, grads, moves = descend("momentum", lr=0.01, dampening=0.0, options={"stats": True, "clip_norm": 1e-3})
    exact = -2 * grads[-2] @ moves[-2] / (moves[-2] @ moves[-2])
    assert optimizer.stats["total"]["sharpness_limit"] == pytest.approx(exact, rel=1e-9)


def test_rates_of_radam_are_those_it_moves_with():
    for isa in lrfast.available_isas():
        param = np.array([1.0])
        optimizer = lrfast.RAdam(param, lr=0.01, stats=True)
        with lrfast.use_isa(isa):
            for _ in range(12):
                before = param.copy()
                optimizer.step(np.array([3.0]))
                corrected = optimizer.state[0]["exp_avg"][0] / (1 - 0.9**optimizer.updates)
                assert optimizer.stats["total"]["rate_max"] == pytest.approx((before - param)[0] / corrected, rel=1e-9)


def test_statistics_stay_what_they_were_when_a_setting_is_edited():
    w = np.ones(3, np.float32)
    adam = lrfast.Adam([w], lr=0.1, stats=True)
    heavy = lrfast.SGD([w.copy()], lr=0.1, momentum=0.9, stats=True)
    for _ in range(5):
        adam.step([w.copy()])
        heavy.step([w.copy()])
    before = [dict(adam.stats["total"]), dict(heavy.stats["total"])]
    adam.param_groups[0]["betas"] = None
    heavy.param_groups[0].update(momentum=0.1, lr=0.5)
    for then, now in zip(before, (adam.stats["total"], heavy.stats["total"]), strict=True):
        np.testing.assert_equal(now, then)
