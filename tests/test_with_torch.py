"""state_dicts to PyTorch and back, and what it writes compared with torch_layouts.py: make test-torch."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest

import lrfast
from lrfast import schedules

import torch_layouts
from variants import VARIANTS

torch = pytest.importorskip("torch")

NOT_THERE = {"accumulate": "sum", "initial": "zero"}
CLASSES = sorted(torch_layouts.GROUPS)
PAIRS = [
    name
    for name, variant in VARIANTS.items()
    if variant.cls.__name__ in torch_layouts.GROUPS
    and all(variant.settings.get(key, value) == value for key, value in NOT_THERE.items())
]
COUNTS = 5


@pytest.fixture(autouse=True)
def default_dtype(request):
    """In it PyTorch keeps what tensors carry from step to step: eta, mu, mu_product."""
    kept, parameters = torch.get_default_dtype(), getattr(request.node, "callspec", None)
    torch.set_default_dtype(parameters.params.get("dtype", torch.float64) if parameters else kept)
    yield
    torch.set_default_dtype(kept)


def gradients(params, t):
    return [np.random.default_rng([t, i]).standard_normal(p.shape).astype(p.dtype) for i, p in enumerate(params)]


def make_theirs(name, dtype, steps=COUNTS, **more):
    variant = VARIANTS[name]
    params = [torch.nn.Parameter(torch.linspace(-1, 1, n, dtype=dtype)) for n in (6, 3)]
    settings = {key: value for key, value in variant.settings.items() if key not in NOT_THERE}
    theirs = getattr(torch.optim, variant.cls.__name__)(params, **settings, **more)
    advance_theirs(theirs, 0, steps)
    return theirs


def advance_theirs(theirs, first, stop):
    params = [p for group in theirs.param_groups for p in group["params"]]
    for t in range(first, stop):
        for p, g in zip(params, gradients([p.detach().numpy() for p in params], t), strict=True):
            p.grad = torch.from_numpy(g)
        theirs.step()


def make_ours(name, theirs, **more):
    """Ours, of copies of their parameters."""
    arrays = [p.detach().numpy().copy() for group in theirs.param_groups for p in group["params"]]
    return VARIANTS[name].make(arrays, **more)


def advance(ours, first, stop):
    params = [p for group in ours.param_groups for p in group["params"]]
    for t in range(first, stop):
        ours.step(gradients(params, t))


def check_same_parameters(ours, theirs):
    for mine, other in zip(ours.param_groups[0]["params"], theirs.param_groups[0]["params"], strict=True):
        tolerance = 1e-5 if mine.dtype == np.float32 else 1e-12
        assert np.allclose(mine, other.detach().numpy(), rtol=tolerance, atol=tolerance)


def counts(cls):
    return {"updates": COUNTS} if cls is lrfast.SGD else {}


def for_torch(ours):
    """The lines of docs/checkpoints.md."""
    saved = ours.state_dict()
    saved["state"] = {
        i: {
            key: torch.from_numpy(x) if isinstance(x, np.ndarray) else torch.tensor(float(x))
            for key, x in state.items()
        }
        for i, state in saved["state"].items()
        if state["step"] > 0 or "sum" in state
    }
    return saved


@pytest.mark.parametrize("cls", CLASSES)
def test_layouts_are_those_of_this_version(cls):
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    theirs = getattr(torch.optim, cls)([torch.nn.Parameter(torch.ones(2))])
    group = {key: value for key, value in theirs.state_dict()["param_groups"][0].items() if key != "params"}
    assert group == torch_layouts.group(cls, version)
    advance_theirs(theirs, 0, 1)
    for state in theirs.state_dict()["state"].values():
        assert all(state["step"].shape == step.shape for step in torch_layouts.steps(cls, version, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_theirs_loads_and_goes_on(name, dtype):
    theirs = make_theirs(name, dtype)
    ours = make_ours(name, theirs)
    saved = theirs.state_dict()
    ours.load_state_dict(saved, **counts(type(ours)))
    assert ours.updates == COUNTS
    advance(ours, COUNTS, 2 * COUNTS)
    advance_theirs(theirs, COUNTS, 2 * COUNTS)
    check_same_parameters(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_ours_loads_there_and_goes_on(name, dtype):
    theirs = make_theirs(name, dtype, steps=0)
    ours = make_ours(name, theirs)
    advance(ours, 0, COUNTS)
    for p, array in zip(theirs.param_groups[0]["params"], ours.param_groups[0]["params"], strict=True):
        p.data.copy_(torch.from_numpy(array))
    file = io.BytesIO()
    torch.save(for_torch(ours), file)
    file.seek(0)
    theirs.load_state_dict(torch.load(file))
    advance(ours, COUNTS, 2 * COUNTS)
    advance_theirs(theirs, COUNTS, 2 * COUNTS)
    check_same_parameters(ours, theirs)
    ours.load_state_dict(theirs.state_dict(), updates=2 * COUNTS)


@pytest.mark.parametrize("name", PAIRS)
def test_a_flag_that_is_missing_is_filled_in_as_there(name):
    """Each key that they fill in, for themselves and for ours, from what they save."""
    cls = VARIANTS[name].cls.__name__
    for key in torch_layouts.FILLED_IN[cls]:
        theirs = make_theirs(name, torch.float64)
        saved = theirs.state_dict()
        value = saved["param_groups"][0].pop(key, None)
        if key == "decoupled_weight_decay" and cls != "RAdam":
            continue  # tells Adam from AdamW
        if value:
            continue  # it was on: without it, the checkpoint is another one
        theirs.load_state_dict(copy.deepcopy(saved))
        ours = make_ours(name, theirs)
        ours.load_state_dict(saved, **counts(type(ours)))
        advance(ours, COUNTS, COUNTS + 2)
        advance_theirs(theirs, COUNTS, COUNTS + 2)
        check_same_parameters(ours, theirs)


@pytest.mark.parametrize(("one", "other"), [(a, b) for a in CLASSES for b in CLASSES if a != b])
def test_theirs_are_told_apart(one, other):
    names = {"SGD": "momentum"}
    theirs = make_theirs(names.get(one, one.lower()), torch.float64)
    ours = make_ours(names.get(other, other.lower()), theirs)
    with pytest.raises(ValueError, match=r"another optimizer|expected"):
        ours.load_state_dict(theirs.state_dict(), updates=COUNTS)


def test_a_schedule_needs_the_count_that_their_sgd_has_not():
    for name in ("sgd", "momentum"):
        theirs = make_theirs(name, torch.float32)
        ours = make_ours(name, theirs, lr=schedules.cosine(0.1, 100))
        with pytest.raises(ValueError, match="expected a count of updates"):
            ours.load_state_dict(theirs.state_dict())
        ours.load_state_dict(theirs.state_dict(), updates=45)
        assert ours.updates == 45


def test_tensors_that_numpy_does_not_take():
    theirs = make_theirs("adam", torch.float32)
    ours = make_ours("adam", theirs)
    good = theirs.state_dict()
    for change in (
        lambda t: t.to(torch.bfloat16),
        lambda t: t.clone().requires_grad_(),
        lambda t: t.to(torch.float64),
        lambda t: t.to("meta"),
        lambda t: t.to_sparse(),
        lambda t: t.to(torch.complex64),
    ):
        saved = {**good, "state": {i: dict(state) for i, state in good["state"].items()}}
        saved["state"][1]["exp_avg"] = changed = change(saved["state"][1]["exp_avg"])
        before = ours.state_dict()["state"][0]["exp_avg"]
        with pytest.raises(TypeError, match=r"state_dict: state\[1\]\['exp_avg'\]: expected"):
            ours.load_state_dict(saved)
        assert np.array_equal(ours.state[0]["exp_avg"], before)
        if changed.is_floating_point() and changed.layout == torch.strided and changed.device.type == "cpu":
            ours.load_state_dict(saved, dtype="cast")
            assert np.array_equal(ours.state[1]["exp_avg"], changed.detach().float().numpy())


@pytest.mark.parametrize("cls", CLASSES)
def test_names_of_a_model(cls):
    """There and back, in another order."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    theirs = getattr(torch.optim, cls)(model.named_parameters(), **({"momentum": 0.9} if cls == "SGD" else {}))
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    theirs.step()
    names = [name for name, _ in model.named_parameters()]
    arrays = dict(zip(names, (p.detach().numpy() for p in model.parameters()), strict=True))
    settings = {"momentum": 0.9} if cls == "SGD" else {}
    ours = getattr(lrfast, cls)([(name, arrays[name]) for name in names[::-1]], **settings)
    ours.load_state_dict(theirs.state_dict())
    for i, name in enumerate(names[::-1]):
        for key, value in theirs.state_dict()["state"][names.index(name)].items():
            assert key == "step" or np.array_equal(ours.state[i][key], value.numpy())
    saved = for_torch(ours)
    assert saved["param_groups"][0]["param_names"] == names[::-1]
    renamed = theirs.state_dict()
    renamed["param_groups"][0]["param_names"] = ["x", *names[1:]]
    with pytest.raises(ValueError, match=rf"missing: '{names[0]}'; unknown: 'x'"):
        ours.load_state_dict(renamed)
    with pytest.raises(ValueError, match="with/without names"):  # theirs; ours says the same
        theirs.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    with pytest.raises(ValueError, match="of all groups, or of none"):
        ours.add_param_group({"params": [np.ones(2)]})


def test_what_their_schedulers_write_is_kept():
    theirs = make_theirs("adam", torch.float64)
    torch.optim.lr_scheduler.OneCycleLR(theirs, 0.1, total_steps=10)
    ours = make_ours("adam", theirs)
    ours.load_state_dict(theirs.state_dict())
    written = {key: theirs.param_groups[0][key] for key in ("initial_lr", "max_lr", "min_lr", "max_momentum")}
    assert written.items() <= ours.state_dict()["param_groups"][0].items()
    ours.step(gradients(ours.param_groups[0]["params"], 0))
