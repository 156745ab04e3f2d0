"""How optimizers behave from outside: collections, groups, state, threads, interrupts, without the extension."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from contextlib import suppress

import numpy as np
import pytest

import lrfast

from arrays import make_grads, make_params, same_bits
from variants import STILL, taken


def python(code, **environment):
    """Runs code in a fresh interpreter; returns the finished process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )


# ---- collections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("kind", ["array", "list", "tuple", "generator", "mapping", "groups"])
def test_every_collection_gives_the_same(kind, bound):
    params = [make_params(20, np.float32), make_params(7, np.float64)][: 1 if kind == "array" else 2]
    grads = [make_grads(p.size, p.dtype) for p in params]
    wrap = {
        "array": lambda arrays: arrays[0],
        "list": list,
        "tuple": tuple,
        "generator": lambda arrays: (a for a in arrays),
        "mapping": lambda arrays: dict(zip("ab", arrays, strict=True)),
        "groups": lambda arrays: [{"params": a} for a in arrays],
    }[kind]
    wrap_grads = list if kind == "groups" else wrap
    expected = [p.copy() for p in params]
    plain = lrfast.Adam(expected)
    optimizer = lrfast.Adam(wrap(params), grads=wrap_grads(grads) if bound else None)
    for _ in range(3):
        plain.step(grads)
        optimizer.step(*([] if bound else [wrap_grads(grads)]))
    assert all(same_bits(a, b) for a, b in zip(params, expected, strict=True))
    own = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(p is q for p, q in zip(params, own, strict=True))


def test_mapping_in_another_order():
    params = {"w": np.ones(3), "b": np.ones(2)}
    lrfast.SGD(params, lr=1.0).step({"b": np.full(2, 2.0), "w": np.ones(3)})
    assert np.all(params["w"] == 0)
    assert np.all(params["b"] == -1)


def test_groups_have_their_own_numbers():
    a, b = np.ones(2), np.ones(2)
    optimizer = lrfast.SGD([{"params": [a], "lr": 0.5}, {"params": [b]}], lr=0.25)
    optimizer.step([np.ones(2), np.ones(2)])
    assert (a[0], b[0]) == (0.5, 0.75)
    optimizer.param_groups[1]["lr"] = np.float32(1.0)
    optimizer.step([np.zeros(2), np.ones(2)])
    assert (a[0], b[0]) == (0.5, -0.25)
    assert type(optimizer.param_groups[1]["lr"]) is float


def test_without_copies_there_is_no_list_of_them():
    assert lrfast.SGD(np.ones(3)).copy_to is None


def test_switches_are_kept_as_they_are_in_files():
    optimizer = lrfast.SGD(np.ones(3), momentum=0.9, nesterov=np.True_)
    assert optimizer.param_groups[0]["nesterov"] is True


def test_one_gradient_may_serve_two_parameters():
    a, b, g = np.ones(3), np.ones(3), np.ones(3)
    optimizer = lrfast.SGD([a, b], lr=1.0)
    optimizer.step([g, g])
    assert not np.any(a)
    assert not np.any(b)
    assert np.all(g == 1)


def test_gradients_are_only_read():
    for cls in lrfast.optim.all_optimizers():
        grad = make_grads(100, np.float32)
        before = grad.tobytes()
        optimizer = cls(make_params(100, np.float32), maximize=True, **taken(cls, {"weight_decay": 0.1}))
        for _ in range(3):
            optimizer.step(grad)
        assert grad.tobytes() == before


def test_state_is_complete_from_the_beginning():
    optimizer = lrfast.Adam([np.ones((2, 3)), np.ones(4, np.float32)], amsgrad=True)
    assert [sorted(s) for s in optimizer.state] == [["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step"]] * 2
    assert optimizer.state[0]["exp_avg"].shape == (2, 3)
    assert optimizer.state[1]["exp_avg"].dtype == np.float32
    assert np.all(lrfast.Adagrad(np.ones(3), initial_accumulator_value=0.5).state[0]["sum"] == 0.5)
    assert list(lrfast.Adagrad(np.ones(3), accumulate="mean").state[0]) == ["step", "square_avg"]
    assert list(lrfast.SGD(np.ones(3)).state[0]) == ["step"]


def test_state_arrays_are_live():
    optimizer = lrfast.SGD(np.ones(3), lr=1.0, momentum=0.5)
    optimizer.step(np.zeros(3))
    optimizer.state[0]["momentum_buffer"][...] = 2.0
    optimizer.step(np.zeros(3))
    assert np.all(optimizer.state[0]["momentum_buffer"] == 1.0)


def test_large_states_keep_clear_of_each_other_within_a_page():
    param = np.ones(100_000, np.float32)
    state = lrfast.Adam(param).state[0]
    offsets = [a.ctypes.data % 4096 for a in (param, state["exp_avg"], state["exp_avg_sq"])]
    distances = [(b - a) % 4096 for a, b in itertools.pairwise(offsets)]
    assert all(900 < d <= 1024 for d in distances)


def test_zero_grad():
    grad = np.ones(3)
    optimizer = lrfast.SGD([np.ones(3), np.ones(2)], grads=[grad, None])
    optimizer.zero_grad()
    assert not np.any(grad)


def test_lr_zero_and_gradient_zero_move_nothing():
    for cls in lrfast.optim.all_optimizers():
        param = np.array([1.5, -2.0, 3.0], np.float32)
        before = param.tobytes()
        cls(param, lr=0.0).step(np.zeros(3, np.float32))
        cls(param, **taken(cls, STILL)).step(np.ones(3, np.float32))
        assert param.tobytes() == before


def test_torch_defaults():
    """Defaults are part of the contract."""
    defaults = {cls.__name__: cls(np.ones(1)).defaults for cls in lrfast.optim.all_optimizers()}
    assert defaults["SGD"] == dict(
        lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False
    )
    assert defaults["Adagrad"] == dict(
        **dict(lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10),
        **dict(accumulate="sum", maximize=False),
    )
    assert defaults["RMSprop"] == dict(
        **dict(lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False),
        **dict(initial="zero", maximize=False),
    )
    adam = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False)
    assert defaults["Adam"] == adam
    assert defaults["AdamW"] == {**adam, "weight_decay": 1e-2}


# ---- threads and interrupts ----------------------------------------------------------------------------------


def test_two_threads_in_one_optimizer_never_tear():
    """Each step happens whole, or is refused with RuntimeError."""
    param = np.zeros(500_000, np.float32)
    grad = np.ones_like(param)
    optimizer = lrfast.SGD(param, lr=1.0)
    done, refused = [], []

    def work():
        for _ in range(100):
            try:
                optimizer.step(grad)
                done.append(1)
            except RuntimeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) + len(refused) == 300
    assert all("another thread" in message for message in refused)
    assert np.all(param == -float(len(done)))
    assert optimizer.updates == optimizer.state[0]["step"] == len(done)


def test_the_gil_is_released():
    """Another Python thread makes progress during one long step."""
    optimizer = lrfast.Adam(np.zeros(20_000_000, np.float32), grads=np.zeros(20_000_000, np.float32))
    ticks, stop = [], threading.Event()

    def count():
        while not stop.wait(0.0005):
            ticks.append(1)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        optimizer.step()
        before = len(ticks)
        for _ in range(5):
            optimizer.step()
        during = len(ticks) - before
    finally:
        stop.set()
        counter.join()
    assert during >= 5


@pytest.mark.parametrize("isa", [lrfast.available_isas()[0], "numpy"])
def test_interrupt_during_a_step(isa):
    """Ctrl-C: the step completes, its counters agree, then KeyboardInterrupt comes."""
    param = np.zeros(3_000_000, np.float32)
    optimizer = lrfast.SGD(param, lr=1.0)
    grad = np.ones_like(param)
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    with lrfast.use_isa(isa):
        timer.start()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            while True:
                optimizer.step(grad)
    timer.join()
    assert np.all(param == -float(optimizer.updates))
    assert optimizer.state[0]["step"] == optimizer.updates


def test_a_list_emptied_during_its_step():
    """Gradients live until the step is over, whatever another thread does to the caller's list."""
    param = np.zeros(20_000_000, np.float32)
    optimizer = lrfast.SGD([param], lr=1.0)
    while optimizer.updates < 3:
        grads = [np.ones_like(param)]
        timer = threading.Timer(0.002, grads.clear)
        timer.start()
        with suppress(ValueError):  # emptied even before
            optimizer.step(grads)
        timer.join()
    assert np.all(param == -3)


def during_a_long_step(optimizer, grads, action):
    """Runs action while another thread is in the step of the optimizer; returns the exception or None."""
    started, result = threading.Event(), []

    def work():
        started.set()
        optimizer.step(grads)

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    while thread.is_alive() and not result:
        try:
            action()
        except RuntimeError as error:
            result.append(error)
    thread.join()
    return result[0] if result else None


def test_nothing_changes_a_running_step():
    """Another thread can neither step nor load nor add a group meanwhile; the running step keeps its numbers."""
    params = [np.zeros(15_000_000, np.float32), np.zeros(15_000_000, np.float32)]
    rates = iter([1.0] * 2 + [7.0] * 10**6)
    optimizer = lrfast.SGD([{"params": [p]} for p in params], lr=lambda t: next(rates))
    saved = optimizer.state_dict()
    grads = [np.ones_like(p) for p in params]
    loads = during_a_long_step(optimizer, grads, lambda: optimizer.load_state_dict(saved))
    assert loads is None or "another thread" in str(loads)
    assert all(np.all(p == p[0]) for p in params)


def test_optimizers_are_freed_at_once():
    """No reference cycle keeps large states until the garbage collector comes."""
    gc.collect()
    gc.disable()
    try:
        for isa in (lrfast.isa(), "numpy"):
            with lrfast.use_isa(isa):
                optimizer = lrfast.Adam(np.ones(10), lr=lambda t: 0.1)
                optimizer.step(np.ones(10))
                alive = weakref.ref(optimizer)
                del optimizer
                assert alive() is None
    finally:
        gc.enable()


def test_fork_after_steps():
    optimizer = lrfast.SGD(np.zeros(10), lr=1.0, grads=np.ones(10))
    optimizer.step()
    child = os.fork()
    if child == 0:
        optimizer.step()
        os._exit(0 if np.all(optimizer.param_groups[0]["params"][0] == -2) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- instruction sets, and none ------------------------------------------------------------------------------


def test_use_isa_is_scoped():
    best = lrfast.isa()
    with lrfast.use_isa("numpy"):
        assert lrfast.isa() == "numpy"
        with lrfast.use_isa("baseline" if "baseline" in lrfast.available_isas() else best):
            assert lrfast.isa() != "numpy"
        assert lrfast.isa() == "numpy"
    assert lrfast.isa() == best
    with (
        pytest.raises(ValueError, match=r"isa 'sse9' is not available here; there are .*numpy"),
        lrfast.use_isa("sse9"),
    ):
        pass
    assert lrfast.isa() == best


@pytest.mark.parametrize("isa", lrfast.available_isas())
def test_isa_from_the_environment(isa):
    run = python("import lrfast; print(lrfast.isa())", LRFAST_ISA=isa)
    assert run.stdout.strip() == isa, run.stderr


def test_impossible_isa_from_the_environment():
    run = python("import lrfast", LRFAST_ISA="vax")
    assert run.returncode == 1
    assert "ValueError: LRFAST_ISA='vax' is not available here; there are" in run.stderr
    assert "numpy" in run.stderr


def test_without_the_extension():
    """A missing extension is no error: everything runs on the reference, says so, and gives the same bits."""
    run = python(
        """
        import copy, os, sys, warnings
        import numpy as np
        os.environ.pop("LRFAST_ISA", None)  # with which nobody is warned
        sys.modules["lrfast._engine._core"] = None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            import lrfast
        assert [x.category for x in said] == [RuntimeWarning] and "NumPy reference" in str(said[0].message)
        assert lrfast.isa() == "numpy" and lrfast.available_isas() == ("numpy",)
        lrfast.show_config()
        p = np.linspace(-1, 1, 50, dtype=np.float32)
        o = lrfast.AdamW(p, lr=lrfast.schedules.cosine(0.1, 10), amsgrad=True, grads=p * 2)
        for _ in range(4):
            o.step()
        o = copy.deepcopy(o)
        o.load_state_dict(o.state_dict())
        o.step()
        lrfast.functional.sgd(p, p * 3, step=1)
        try:
            o.param_groups[0]["eps"] = -1.0
            o.step()
        except ValueError as e:
            assert "eps: expected" in str(e)
        print(o.param_groups[0]["params"][0].tobytes().hex(), p.tobytes().hex())
        """
    )
    assert run.returncode == 0, run.stderr
    assert "none: the NumPy reference runs instead" in run.stdout
    p = np.linspace(-1, 1, 50, dtype=np.float32)
    q = p.copy()
    optimizer = lrfast.AdamW(q, lr=lrfast.schedules.cosine(0.1, 10), amsgrad=True, grads=p * 2)
    for _ in range(5):
        optimizer.step()
        if optimizer.updates == 4:
            p[...] = q
    lrfast.functional.sgd(p, p * 3, step=1)
    assert run.stdout.split()[-2:] == [q.tobytes().hex(), p.tobytes().hex()]


def test_import_is_quiet():
    """No thread, no output, no warning, nothing heavy."""
    run = python(
        """
        import os, sys, numpy
        before = len(os.listdir("/proc/self/task"))
        import lrfast
        assert len(os.listdir("/proc/self/task")) == before
        heavy = {"matplotlib", "sklearn", "rich", "torch"} & set(sys.modules)
        assert not heavy, heavy
        assert numpy.finfo("f4").smallest_subnormal > 0
        """
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_versions_agree():
    from importlib.metadata import version

    from lrfast._engine import _core

    changelog = (os.path.dirname(__file__) or ".") + "/../CHANGELOG.md"
    with open(changelog, encoding="utf-8") as file:
        newest = next(line for line in file if line.startswith("## ")).split()[1]
    assert lrfast.__version__ == _core.version() == version("lrfast") == newest


def test_show_config(capsys):
    lrfast.show_config()
    text = capsys.readouterr().out
    facts = lrfast.show_config("dicts")
    assert facts["isa"] == lrfast.isa()
    assert lrfast.isa() in text
    with pytest.raises(ValueError, match="mode: expected"):
        lrfast.show_config("json")


def test_groups_are_added_to_sequences_alone():
    for params in (np.ones(3), {"x": np.ones(3)}):
        optimizer = lrfast.SGD(params)
        with pytest.raises(ValueError, match="add_param_group: expected an optimizer made from a sequence or groups"):
            optimizer.add_param_group({"params": [np.ones(2)]})
        assert len(optimizer.param_groups) == len(optimizer.state) == 1
