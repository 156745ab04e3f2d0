"""The reference against exact arithmetic, and against PyTorch where that is installed.

The oracle, exact.py, is written from the papers' formulas, not from the reference's code. One step at a time from the
same float state, so that the error is that of one operation chain: at most half a unit in the last place per rounding,
counted where terms cancel in units of these terms.
"""

from __future__ import annotations

import importlib.util
from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest

import lrfast
from lrfast._engine.elementary import one_minus_power
from lrfast.rules.radam import length

import exact
from exact import mpf, term
from variants import UNLISTED, VARIANTS

# In halves of a unit in the last place of the terms; the worst of all cases below was 5.49. exact.py has more for
# formulas that are longer.
LIMIT = 6


def test_every_optimizer_is_listed_with_its_formula():
    assert UNLISTED == [], "variants.py has no entry of theirs"
    assert [v.name for v in VARIANTS.values() if not hasattr(exact, v.cls.__name__.lower())] == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", [v for v in VARIANTS if VARIANTS[v].cls not in UNLISTED])
def test_one_step_against_exact_arithmetic(variant, dtype, request):
    n, rng = 400 if request.config.getoption("--whole") else 50, np.random.default_rng(5)
    param = rng.standard_normal(n).astype(dtype)
    optimizer = VARIANTS[variant].make(param)
    formula = getattr(exact, type(optimizer).__name__.lower())
    settings = SimpleNamespace(**{k: exactly(v) for k, v in optimizer.param_groups[0].items() if k != "params"})
    states = {k: v for k, v in optimizer.state[0].items() if isinstance(v, np.ndarray)}
    worst = 0.0
    with lrfast.use_isa("numpy"):
        for t in range(1, 9):  # RAdam rectifies from its sixth step on
            grad = (rng.standard_normal(n) * 10.0 ** rng.uniform(-4, 4, n)).astype(dtype)
            carried = {k: term(v) for k, v in optimizer.state[0].items() if type(v) is float}
            before = [-grad if settings.maximize else grad, *(array.copy() for array in (param, *states.values()))]
            optimizer.step(grad)
            after = {"param": param, **states}
            for i in range(n):
                g, p, *old = (term(float(array[i])) for array in before)
                for name, new in formula(settings, t, p, g, **dict(zip(states, old, strict=True)), **carried).items():
                    if name in after and new.size > 0:
                        worst = max(worst, abs(float(float(after[name][i]) - new.value)) / new.size)
                    elif name in carried and i == 0:
                        off = abs(float((mpf(optimizer.state[0][name]) - new.value) / new.value))
                        assert off <= 3 * np.finfo(np.float64).eps, name
    worst /= np.finfo(dtype).eps / 2
    assert worst <= exact.LIMITS.get(formula.__name__, LIMIT), f"{worst:.2f} half units in the last place"


def exactly(setting):
    if isinstance(setting, tuple):
        return tuple(map(mpf, setting))
    return mpf(setting) if isinstance(setting, float) else setting


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


def test_the_length_of_radam_is_exact_where_its_terms_cancel():
    """Beyond the series, from y = 2^-8 on, some bits are lost, as promised bits have it."""
    rng = np.random.default_rng(0)
    betas = [1 - 2.0**-k for k in range(10, 54)] + [1 - 10 ** rng.uniform(-15, -2.9) for _ in range(300)]
    worst = {True: 0.0, False: 0.0}
    for beta in betas:
        for t in [*range(1, 9), *(int(y / (1 - beta)) for y in (2**-8.01, 2**-7.99, 2**-12, 2**-30, 0.1, 3.0))]:
            if t > 0 and t * (1 - beta) > 1e-300 and (t >= 6 or beta > 0.9999):
                expected = 2 / (1 - mpf(beta)) - 1 - 2 * t * mpf(beta) ** t / (1 - mpf(beta) ** t)
                got = length(beta, one_minus_power(beta, t), float(t))
                is_series = -t * exact.mpmath.log(mpf(beta)) < mpf(2) ** -8
                worst[is_series] = max(worst[is_series], abs(float(got / expected - 1)))
    assert worst[True] < 4 * 2**-53
    assert worst[False] < 2**11 * 2**-53


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

    def has_a_twin(variant):
        """Whether PyTorch has the class with all these settings."""
        theirs = getattr(torch.optim, variant.cls.__name__, None)
        return theirs is not None and set(variant.settings) <= set(signature(theirs).parameters)

    @pytest.fixture
    def default_dtype(dtype):
        """In it PyTorch keeps what tensors carry from step to step: eta, mu, mu_product."""
        kept = torch.get_default_dtype()
        torch.set_default_dtype(torch.from_numpy(np.zeros(1, dtype)).dtype)
        yield
        torch.set_default_dtype(kept)

    @pytest.mark.usefixtures("default_dtype")
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(
        "variant",
        # Near beta2 = 1 the length of PyTorch's average loses its digits.
        [name for name, variant in VARIANTS.items() if has_a_twin(variant) and name != "radam-long-memory"],
    )
    def test_against_pytorch(variant, dtype):
        _, cls, own, *_ = VARIANTS[variant]
        rng = np.random.default_rng(3)
        param = rng.standard_normal(500).astype(dtype)
        mirror = torch.tensor(param.copy(), requires_grad=True)
        settings = {"lr": 1e-2, **own}
        theirs = getattr(torch.optim, cls.__name__)([mirror], **settings, foreach=False)
        ours = cls(param, **settings)
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
        assert loaded.param_groups[0]["lr"] == settings["lr"]
        for name, value in theirs.state_dict()["state"].get(0, {}).items():
            assert np.array_equal(loaded.state[0][name], value)
        saved = ours.state_dict()
        saved["state"] = {
            0: {name: torch.tensor(value, dtype=mirror.dtype) for name, value in saved["state"][0].items()}
        }
        theirs.load_state_dict(saved)
        for name, value in theirs.state[mirror].items():
            assert np.array_equal(np.asarray(ours.state[0][name], value.numpy().dtype), value)
        theirs.step()

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
