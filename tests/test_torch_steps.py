"""200 steps of each optimizer of lrfast.torch on the gradients that PyTorch's gets, which are prescribed.

Settings make conventions visible: a large eps, a large decay, betas far from the defaults. Beside each comparison its
nearest wrong variant runs, the mistake that is made most often, and must miss the bound by far: a comparison that it
passes would say nothing.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lrfast.torch  # noqa: E402

STEPS = 200
SHAPES = [(7, 5), (7,), (3, 7), (3,)]
KINDS = ["recorded", "adversarial"]


@cache
def gradients(kind):
    """Per step those of all parameters, in float64: of a model that trains by itself, or hard ones."""
    generator = torch.Generator().manual_seed(0)
    if kind == "recorded":
        layers = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in SHAPES]
        inputs = torch.randn(64, 5, generator=generator, dtype=torch.float64)
        targets = torch.randn(64, 3, generator=generator, dtype=torch.float64)
        recorded = []
        for t in range(STEPS):
            batch = slice(t % 4 * 16, t % 4 * 16 + 16)
            hidden = torch.tanh(inputs[batch] @ layers[0].T + layers[1])
            loss = (hidden @ layers[2].T + layers[3] - targets[batch]).square().mean()
            recorded.append(torch.autograd.grad(loss, layers))
            with torch.no_grad():
                for layer, grad in zip(layers, recorded[-1], strict=True):
                    layer -= 0.05 * grad
        return recorded
    hard = []
    for t in range(STEPS):
        scale = 10.0 ** (t % 13 - 6)
        signs = [torch.randn(shape, generator=generator, dtype=torch.float64).sign() for shape in SHAPES]
        row = [x * scale for x in signs]
        if t % 7 == 3:
            row = [torch.zeros_like(x) for x in row]
        if t % 11 == 5:
            row = [x * 1e-20 for x in row]
        hard.append(row)
    return hard


def start(dtype):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES]


def run(make, dtype, kind, scalars=torch.float64):
    """The parameters after each step of an optimizer, in float64. In ``scalars`` PyTorch keeps eta and mu_product."""
    params = [torch.nn.Parameter(x) for x in start(dtype)]
    path, kept = [], torch.get_default_dtype()
    torch.set_default_dtype(scalars)
    try:
        optimizer = make(params)
        for row in gradients(kind):
            for p, g in zip(params, row, strict=True):
                p.grad = g.to(dtype)
            optimizer.step()
            path.append(torch.cat([p.detach().double().flatten() for p in params]))
    finally:
        torch.set_default_dtype(kept)
    return torch.stack(path)


class Formula:
    """An optimizer in float64 from a function update(p, g, state, t, settings) in NumPy."""

    def __init__(self, update, settings):
        self.update, self.settings = update, settings

    def __call__(self, params):
        self.params, self.states, self.t = params, [{} for _ in params], 0
        return self

    def step(self):
        self.t += 1
        for p, state in zip(self.params, self.states, strict=True):
            with torch.no_grad():
                array = p.detach().numpy()
                self.update(array, p.grad.numpy(), state, self.t, self.settings)


def moments(g, s, t, x):
    """Of Adam: m and v corrected, and the corrections."""
    (b1, b2), zero = x["betas"], np.zeros_like(g)
    s["m"] = b1 * s.get("m", zero) + (1 - b1) * g
    s["v"] = b2 * s.get("v", zero) + (1 - b2) * g * g
    return s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)


def dampened_first(p, g, s, t, x):
    """The first gradient enters the buffer with 1 - dampening."""
    g = g + x["weight_decay"] * p
    s["b"] = x["momentum"] * s.get("b", np.zeros_like(g)) + (1 - x["dampening"]) * g
    p -= x["lr"] * s["b"]


def nesterov_behind(p, g, s, t, x):
    """Nesterov with the buffer of the step before."""
    g = g + x["weight_decay"] * p
    before = s.get("b", np.zeros_like(g))
    s["b"] = x["momentum"] * before + g
    p -= x["lr"] * (g + x["momentum"] * before)


def decay_after(p, g, s, t, x):
    """SGD: the parameter decays after its update."""
    p -= x["lr"] * g
    p -= x["lr"] * x["weight_decay"] * p


def adagrad_inside(p, g, s, t, x):
    """eps inside the root."""
    g = g + x["weight_decay"] * p
    s["sum"] = s.get("sum", x["initial_accumulator_value"]) + g * g
    p -= x["lr"] / (1 + (t - 1) * x["lr_decay"]) * g / np.sqrt(s["sum"] + x["eps"])


def adagrad_early(p, g, s, t, x):
    """The rate decays from the first step on."""
    g = g + x["weight_decay"] * p
    s["sum"] = s.get("sum", x["initial_accumulator_value"]) + g * g
    p -= x["lr"] / (1 + t * x["lr_decay"]) * g / (np.sqrt(s["sum"]) + x["eps"])


def rmsprop_inside(p, g, s, t, x):
    """eps inside the root, as TensorFlow has it."""
    g = g + x["weight_decay"] * p
    a, zero = x["alpha"], np.zeros_like(g)
    s["v"] = a * s.get("v", zero) + (1 - a) * g * g
    s["g"] = a * s.get("g", zero) + (1 - a) * g
    v = s["v"] - s["g"] ** 2 if x.get("centered") else s["v"]
    u = g / np.sqrt(v + x["eps"])
    s["b"] = x.get("momentum", 0) * s.get("b", zero) + u
    p -= x["lr"] * s["b"]


def eps_hat(p, g, s, t, x):
    """Adam in the form in which eps is not corrected, as Keras has it."""
    g = g + x["weight_decay"] * p
    m, _ = moments(g, s, t, x)
    root = math.sqrt(1 - x["betas"][1] ** t)
    p -= x["lr"] * m * root / (np.sqrt(s["v"]) + x["eps"])


def largest_corrected(p, g, s, t, x):
    """AMSGrad that keeps the largest corrected v."""
    g = g + x["weight_decay"] * p
    m, v = moments(g, s, t, x)
    s["max"] = np.maximum(s.get("max", np.zeros_like(v)), v)
    p -= x["lr"] * m / (np.sqrt(s["max"]) + x["eps"])


def adamw_after(p, g, s, t, x):
    """Decay after the update."""
    m, v = moments(g, s, t, x)
    p -= x["lr"] * m / (np.sqrt(v) + x["eps"])
    p *= 1 - x["lr"] * x["weight_decay"]


def adamw_plain_decay(p, g, s, t, x):
    """Decay without the learning rate, as in the paper."""
    m, v = moments(g, s, t, x)
    p *= 1 - 0.1 * x["weight_decay"]
    p -= x["lr"] * m / (np.sqrt(v) + x["eps"])


def nadam_late(p, g, s, t, x):
    """mu of the step before in place of this one's."""
    g = g + x["weight_decay"] * p
    _, v = moments(g, s, t, x)
    mu, ahead = (x["betas"][0] * (1 - 0.5 * 0.96 ** (k * x["momentum_decay"])) for k in (t - 1, t))
    s["P"] = s.get("P", 1.0) * mu
    p -= x["lr"] * ((1 - mu) / (1 - s["P"]) * g + ahead / (1 - s["P"] * ahead) * s["m"]) / (np.sqrt(v) + x["eps"])


def radam_four(p, g, s, t, x):
    """The paper's threshold of 4 in place of 5."""
    g = g + x["weight_decay"] * p
    b2 = x["betas"][1]
    m, _ = moments(g, s, t, x)
    most = 2 / (1 - b2) - 1
    rho = most - 2 * t * b2**t / (1 - b2**t)
    if rho > 4:
        r = math.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
        p -= x["lr"] * r * m * math.sqrt(1 - b2**t) / (np.sqrt(s["v"]) + x["eps"])
    else:
        p -= x["lr"] * m


def adamax_outside(p, g, s, t, x):
    """eps beside the largest, not inside."""
    g = g + x["weight_decay"] * p
    m, _ = moments(g, s, t, x)
    s["u"] = np.maximum(x["betas"][1] * s.get("u", np.zeros_like(g)), np.abs(g))
    p -= x["lr"] * m / (s["u"] + x["eps"])


def adadelta_half(p, g, s, t, x):
    """eps in the denominator alone."""
    g = g + x["weight_decay"] * p
    rho, zero = x["rho"], np.zeros_like(g)
    s["v"] = rho * s.get("v", zero) + (1 - rho) * g * g
    u = np.sqrt(s.get("d", zero) + 1e-6) / np.sqrt(s["v"] + x["eps"]) * g
    s["d"] = rho * s.get("d", zero) + (1 - rho) * u * u
    p -= x["lr"] * u


def rprop_keeping(p, g, s, t, x):
    """Where the sign has changed, a step all the same."""
    product = g * s.get("prev", np.zeros_like(g))
    size = s.get("size", np.full_like(g, x["lr"]))
    size = np.clip(size * np.where(product > 0, x["etas"][1], np.where(product < 0, x["etas"][0], 1)), *x["step_sizes"])
    s["size"], s["prev"] = size, g.copy()
    p -= np.sign(g) * size


def asgd_at_once(p, g, s, t, x):
    """The rate of this step in place of the step before."""
    g = g + x["weight_decay"] * p
    eta = x["lr"] / (1 + x["lambd"] * x["lr"] * t) ** x["alpha"]
    p -= x["lambd"] * eta * p + eta * g


def lion(p, g, s, t, x):
    """Lion, of the paper."""
    (b1, b2), m = x["betas"], s.get("m", np.zeros_like(g))
    p *= 1 - x["lr"] * x["weight_decay"]
    p -= x["lr"] * np.sign(b1 * m + (1 - b1) * g)
    s["m"] = b2 * m + (1 - b2) * g


def lion_first(p, g, s, t, x):
    """Its average is updated first."""
    (b1, b2), m = x["betas"], s.get("m", np.zeros_like(g))
    s["m"] = b2 * m + (1 - b2) * g
    p *= 1 - x["lr"] * x["weight_decay"]
    p -= x["lr"] * np.sign(b1 * s["m"] + (1 - b1) * g)


B = {"betas": (0.7, 0.95), "eps": 1e-2}
D = {"lr": 0.1, "weight_decay": 0.1}
CASES = {
    "sgd": ("SGD", D, decay_after),
    "momentum": ("SGD", {**D, "momentum": 0.8, "dampening": 0.3}, dampened_first),
    "nesterov": ("SGD", {**D, "momentum": 0.8, "nesterov": True}, nesterov_behind),
    "adagrad": ("Adagrad", {**D, "eps": 1e-2, "lr_decay": 0.01, "initial_accumulator_value": 0.1}, adagrad_inside),
    "adagrad, rate": ("Adagrad", {**D, "eps": 1e-2, "lr_decay": 0.01, "initial_accumulator_value": 0}, adagrad_early),
    "rmsprop": ("RMSprop", {**D, "alpha": 0.9, "eps": 1e-2}, rmsprop_inside),
    "rmsprop, momentum": ("RMSprop", {**D, "alpha": 0.9, "eps": 1e-2, "momentum": 0.7}, rmsprop_inside),
    "adam": ("Adam", {**D, **B}, eps_hat),
    "amsgrad": ("Adam", {**D, **B, "amsgrad": True}, largest_corrected),
    "adamw": ("AdamW", {**D, **B}, adamw_after),
    "adamw, rate": ("AdamW", {**D, **B, "lr": 0.05}, adamw_plain_decay),
    "nadam": ("NAdam", {**D, **B, "momentum_decay": 0.05}, nadam_late),
    "radam": ("RAdam", {**D, **B}, radam_four),
    "adamax": ("Adamax", {**D, **B}, adamax_outside),
    "adadelta": ("Adadelta", {**D, "rho": 0.8, "eps": 1e-2}, adadelta_half),
    "rprop": ("Rprop", {"lr": 0.01, "etas": (0.4, 1.3), "step_sizes": (1e-3, 0.5)}, rprop_keeping),
    "asgd": ("ASGD", {**D, "lambd": 0.05, "alpha": 0.7, "t0": 100}, asgd_at_once),
    "lion": ("Lion", {**D, "betas": (0.7, 0.95)}, lion_first),
}


@cache
def paths(name, kind, dtype):
    """Ours, the measure in float64, PyTorch's in that dtype."""
    cls, settings, _ = CASES[name]
    theirs = Formula(lion, settings) if cls == "Lion" else lambda ps: getattr(torch.optim, cls)(ps, **settings)
    ours = run(lambda ps: getattr(lrfast.torch, cls)(ps, **settings), dtype, kind)
    measure = run(theirs, torch.float64, kind)
    return ours, measure, run(theirs, dtype, kind) if cls != "Lion" else measure


def excess(path, measure):
    """The largest difference, as a multiple of 4 eps (1 + |p|) per step."""
    return ((path - measure).abs() / (4 * torch.finfo(torch.float64).eps * roundings(measure))).max().item()


def roundings(measure):
    """(1 + |p|) per step, summed up: an element that was large has roundings of that size."""
    return (1 + measure.abs()).cumsum(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_float64_is_theirs(name, kind):
    ours, measure, _ = paths(name, kind, torch.float64)
    assert excess(ours, measure) <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_the_nearest_wrong_variant_is_far_off(name, kind):
    _, settings, wrong = CASES[name]
    _, measure, _ = paths(name, kind, torch.float64)
    assert excess(run(Formula(wrong, settings), torch.float64, kind), measure) >= 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name, (cls, _, _) in CASES.items() if cls != "Lion"])
def test_float32_is_as_near_as_theirs(name, kind):
    """... to what is right in float64, up to any step; within two roundings a step, one may be nearer by chance."""
    ours, measure, theirs = paths(name, kind, torch.float32)
    mine, its = ((path - measure).abs().amax(1).cummax(0).values for path in (ours, theirs))
    by_chance = 2 * torch.finfo(torch.float32).eps * roundings(measure).amax(1)
    assert (mine <= torch.maximum(1.5 * its, by_chance)).all()


@pytest.mark.parametrize("name", ["nadam", "asgd"])
def test_what_they_carry_in_float32_is_float64_here(name):
    """PyTorch keeps NAdam's mu_product and ASGD's eta in its default dtype, whatever the parameters are."""
    cls, settings, _ = CASES[name]
    measure = paths(name, "recorded", torch.float64)[1]
    theirs, ours = (
        run(lambda ps: getattr(package, cls)(ps, **settings), torch.float64, "recorded", torch.float32)  # noqa: B023
        for package in (torch.optim, lrfast.torch)
    )
    assert excess(theirs, measure) > 1e4
    assert excess(ours, measure) <= 1
