"""The reference against exact arithmetic, and against PyTorch where that is installed.

The oracle is written from the papers' formulas in mpmath, not from the reference's code. One step at a time from the
same float state, so that the error is that of one operation chain: at most one unit in the last place per rounding,
counted where terms cancel in units of the largest term.
"""

from __future__ import annotations

import importlib.util

import mpmath
import numpy as np
import pytest

import lrfast
from lrfast.reference import one_minus_power

from cases import VARIANTS

mpmath.mp.prec = 400
mpf = mpmath.mpf
ADAMS = (lrfast.Adam, lrfast.AdamW, lrfast.RAdam)


def exact_step(variant, settings, t, p, g, states):
    """(new p, new states, largest term of each) of one element in exact arithmetic. settings are complete."""
    h = {k: mpf(v) if isinstance(v, float) else v for k, v in settings.items()}
    lr, wd = h["lr"], h["weight_decay"]
    g = -g if h["maximize"] else g
    decoupled = "adamw" in variant or h.get("decoupled_weight_decay", False)
    x = g if decoupled else g + wd * p
    size = {name: abs(s) + abs(x) for name, s in states.items()}
    new = dict(states)
    x_size = abs(g) + abs(wd * p)
    if "momentum_buffer" in states and "alpha" not in h:
        first = t == 1
        new["momentum_buffer"] = x if first else h["momentum"] * states["momentum_buffer"] + (1 - h["dampening"]) * x
        size["momentum_buffer"] = x_size + abs(states["momentum_buffer"])
        b = new["momentum_buffer"]
        u = lr * (x + h["momentum"] * b) if h["nesterov"] else lr * b
        u_size = lr * (x_size + size["momentum_buffer"])
    elif variant.startswith("sgd"):
        u, u_size = lr * x, lr * x_size
    elif "accumulate" in h:
        (name,) = states
        mean = h["accumulate"] == "mean"
        new[name] = (states[name] * (t - 1) + x * x) / t if mean else states[name] + x * x
        size[name] = states[name] + x_size**2
        u = lr / (1 + (t - 1) * h["lr_decay"]) * x / (mpmath.sqrt(new[name]) + h["eps"])
        u_size = abs(u) * (x_size / abs(x)) ** 3
    elif "alpha" in h:
        alpha = mpf(0) if h["initial"] == "first-gradient" and t == 1 else h["alpha"]
        v = alpha * states["square_avg"] + (1 - alpha) * x * x
        variance, variance_size = v, v
        new["square_avg"], size["square_avg"] = v, states["square_avg"] + x_size**2
        if h["centered"]:
            a = states["grad_avg"] + (1 - alpha) * (x - states["grad_avg"])
            new["grad_avg"], size["grad_avg"] = a, abs(states["grad_avg"]) + x_size
            variance, variance_size = v - a * a, v + a * a
        d = mpmath.sqrt(variance) + h["eps"]
        u = lr * x / d
        u_size = abs(u) * (x_size / abs(x)) * (variance_size / variance)
        if h["momentum"]:
            b = h["momentum"] * states["momentum_buffer"] + x / d
            size["momentum_buffer"] = abs(states["momentum_buffer"]) + u_size / lr
            new["momentum_buffer"], u, u_size = b, lr * b, lr * size["momentum_buffer"]
    else:
        beta1, beta2 = (mpf(b) for b in settings["betas"])
        m = states["exp_avg"] + (1 - beta1) * (x - states["exp_avg"])
        v = beta2 * states["exp_avg_sq"] + (1 - beta2) * x * x
        new["exp_avg"], new["exp_avg_sq"] = m, v
        size["exp_avg"], size["exp_avg_sq"] = abs(states["exp_avg"]) + x_size, states["exp_avg_sq"] + x_size**2
        if h.get("amsgrad"):
            new["max_exp_avg_sq"] = v = max(v, states["max_exp_avg_sq"])
            size["max_exp_avg_sq"] = v + size["exp_avg_sq"]
        cancelled = 1
        if "radam" in variant:
            r, cancelled = rectification(beta2, t)
            scale = r * mpmath.sqrt(1 - beta2**t) / (mpmath.sqrt(v) + h["eps"]) if r else 1
        else:
            scale = 1 / (mpmath.sqrt(v / (1 - beta2**t)) + h["eps"])
        factor = lr / (1 - beta1**t) * scale
        u, u_size = factor * m, factor * size["exp_avg"] * cancelled
        if decoupled:
            p = p * (1 - lr * wd)
    return p - u, new, {"param": abs(p) + u_size, **size}


def rectification(beta2, t):
    """RAdam's r, or 0 where the step is not divided yet; and how much larger than rho - 4 its largest term is."""
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    if length <= 5:
        return 0, 1
    share = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return mpmath.sqrt(share), longest / (length - 4)


# In halves of a unit in the last place of the largest terms: x, the state and the update are one chain each, and the
# worst of all cases below was 3.13.
LIMIT = 4


# Those whose formula stands in exact_step.
EXACT = [v for v, (cls, _) in VARIANTS.items() if cls in (lrfast.SGD, lrfast.Adagrad, lrfast.RMSprop, *ADAMS)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", EXACT)
def test_one_step_against_exact_arithmetic(variant, dtype):
    cls, own = VARIANTS[variant]
    n, rng = 400, np.random.default_rng(5)
    param = rng.standard_normal(n).astype(dtype)
    optimizer = cls(param, **own)
    settings = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    eps = mpf(float(np.finfo(dtype).eps)) / 2
    worst = mpf(0)
    with lrfast.use_isa("numpy"):
        for t in range(1, 9):  # RAdam rectifies from its sixth step on
            grad = (rng.standard_normal(n) * 10.0 ** rng.uniform(-4, 4, n)).astype(dtype)
            before = [param.copy(), {k: v.copy() for k, v in optimizer._bindings.states[0].items()}]
            optimizer.step(grad)
            for i in range(n):
                states = {k: mpf(float(v[i])) for k, v in before[1].items()}
                p, new, size = exact_step(variant, settings, t, mpf(float(before[0][i])), mpf(float(grad[i])), states)
                got = {"param": param, **optimizer._bindings.states[0]}
                for name, expected in {"param": p, **new}.items():
                    error = abs(mpf(float(got[name][i])) - expected)
                    if size[name] > 0:
                        worst = max(worst, error / (eps * size[name]))
    assert worst <= LIMIT, f"{float(worst):.2f} half units in the last place"


def test_powers_are_correctly_rounded():
    rng = np.random.default_rng(0)
    bases = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 1 - 2**-53, 1e-300, 5e-324]
    cases = [(b, t) for b in bases for t in (*range(1, 40), 1000, 10**6, 2**40, 2**53, 2**63 - 1)]
    cases += [(1 - 10 ** rng.uniform(-8, 0), int(10 ** rng.uniform(0, 9))) for _ in range(3000)]
    wrong = [(b, t) for b, t in cases if one_minus_power(b, t) != float(1 - mpf(b) ** t)]
    assert not wrong


def test_hand_computed_first_steps():
    """A few numbers that need no oracle."""
    p, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    lrfast.reference.adam(p, np.array([10.0]), m, v, step=1, lr=0.1, eps=0.0)
    assert m == pytest.approx(1.0)
    assert v == pytest.approx(0.1)
    assert p == pytest.approx(0.9)  # the first step of Adam is lr in size, whatever the gradient
    p, b = np.array([1.0]), np.zeros(1)
    lrfast.reference.sgd(p, np.array([1.0]), b, step=1, lr=0.1, momentum=0.9, dampening=0.5)
    assert (p[0], b[0]) == (0.9, 1.0)  # no dampening on the first gradient
    lrfast.reference.sgd(p, np.array([1.0]), b, step=2, lr=0.1, momentum=0.9, dampening=0.5)
    assert b[0] == pytest.approx(1.4)
    p, s = np.array([0.0]), np.zeros(1)
    for t, g in enumerate((3.0, 4.0), start=1):
        lrfast.reference.adagrad(p, np.array([g]), s, step=t, lr=1.0, eps=0.0, accumulate="mean")
    assert s[0] == pytest.approx(12.5)  # (9 + 16) / 2
    assert p[0] == pytest.approx(-1 - 4 / np.sqrt(12.5))
    p, v = np.array([0.0]), np.zeros(1)
    lrfast.reference.rmsprop(p, np.array([3.0]), v, step=1, lr=1.0, eps=0.0, initial="first-gradient")
    assert (p[0], v[0]) == (-1.0, 9.0)


def test_radam_divides_from_its_sixth_step_on():
    p = np.zeros(2)
    optimizer = lrfast.RAdam(p, lr=0.1)
    for t in range(1, 7):
        before = p.copy()
        optimizer.step(np.array([1.0, 100.0]))
        moved = before - p
        assert (moved[1] == pytest.approx(100 * moved[0])) == (t < 6)
    assert moved[0] == pytest.approx(moved[1]) == pytest.approx(0.1 * 0.02582, rel=1e-3)  # r of rho = 5.994


def test_centered_variance_is_never_negative():
    for dtype in (np.float32, np.float64):
        param = np.zeros(1000, dtype)
        grad = np.random.default_rng(0).uniform(0.1, 1, 1000).astype(dtype)
        optimizer = lrfast.RMSprop(param, alpha=0.9, centered=True)
        for _ in range(300):
            optimizer.step(grad)
        assert np.all(np.isfinite(param))


if importlib.util.find_spec("torch"):
    import torch

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("variant", [v for v in VARIANTS if "mean" not in v and "first" not in v])
    def test_against_pytorch(variant, dtype):
        cls, own = VARIANTS[variant]
        rng = np.random.default_rng(3)
        param = rng.standard_normal(500).astype(dtype)
        mirror = torch.tensor(param.copy(), requires_grad=True)
        theirs = getattr(torch.optim, cls.__name__)([mirror], **{"lr": 1e-2, **own}, foreach=False)
        ours = cls(param, **{"lr": 1e-2, **own})
        steps = 100
        for _ in range(steps):
            grad = rng.standard_normal(500).astype(dtype)
            mirror.grad = torch.from_numpy(grad.copy())
            theirs.step()
            ours.step(grad)
        scale = np.finfo(dtype).eps * (1 + np.abs(param)) * 4 * steps
        assert np.all(np.abs(param - mirror.detach().numpy()) <= scale)
        loaded = cls(param, **own)
        loaded.load_state_dict(theirs.state_dict())
        assert loaded.param_groups[0]["lr"] == 1e-2
        for name, value in theirs.state_dict()["state"].get(0, {}).items():
            assert np.array_equal(loaded.state[0][name], value)

    @pytest.mark.parametrize("clip", [{"clip_norm": 1.0}, {"clip_value": 0.5}, {"clip_value": 0.5, "clip_norm": 3.0}])
    def test_clipping_against_pytorch(clip):
        rng = np.random.default_rng(0)
        params = [rng.standard_normal((20, 30)), rng.standard_normal(7)]
        mirrors = [torch.tensor(p.copy(), requires_grad=True) for p in params]
        theirs = torch.optim.AdamW(mirrors, lr=1e-2, foreach=False)
        ours = lrfast.AdamW(params, lr=1e-2, zero_grads=True, ema=0.9, **clip)
        averaged = torch.optim.swa_utils.AveragedModel(
            torch.nn.ParameterList(mirrors), multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )
        averaged.update_parameters(torch.nn.ParameterList(mirrors))  # the first time it copies
        for _ in range(5):
            grads = [rng.standard_normal(p.shape) for p in params]
            for mirror, grad in zip(mirrors, grads, strict=True):
                mirror.grad = torch.from_numpy(grad.copy())
            if "clip_value" in clip:
                torch.nn.utils.clip_grad_value_(mirrors, clip["clip_value"])
            if "clip_norm" in clip:
                torch.nn.utils.clip_grad_norm_(mirrors, clip["clip_norm"])
            theirs.step()
            averaged.update_parameters(torch.nn.ParameterList(mirrors))
            ours.step(grads)
            assert not any(grad.any() for grad in grads)
        for param, mirror in zip(params, mirrors, strict=True):
            np.testing.assert_allclose(param, mirror.detach().numpy(), rtol=1e-13, atol=1e-15)
        assert ours.ema is not None
        for average, theirs_average in zip(ours.ema, averaged.parameters(), strict=True):
            np.testing.assert_allclose(average, theirs_average.detach().numpy(), rtol=1e-13, atol=1e-15)
