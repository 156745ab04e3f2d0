"""One optimizer in two threads, or in a process and its child: refused in words or whole; nobody waits for ever."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest

import lrfast
from lrfast._engine import backend, numpy_plan

SIZES = (300_000, 7, 200_000)


@pytest.fixture(params=[pytest.param(backend.Plan, id="compiled"), pytest.param(numpy_plan.Plan, id="numpy")])
def plan_class(request, monkeypatch):
    """Optimizers are bound to this plan."""
    monkeypatch.setattr(backend, "Plan", request.param)
    return request.param


def counting(**options: Any) -> lrfast.Optimizer:
    """Whose parameters all are minus the number of its updates."""
    params = [np.zeros(n) for n in SIZES]
    return lrfast.SGD(params, grads=[np.ones(n) for n in SIZES], lr=1.0, momentum=0.5, dampening=0.5, **options)


def is_whole(params: list[np.ndarray], buffers: list[np.ndarray], steps: list[int], updates: int) -> bool:
    """As after so many updates of an optimizer that counts."""
    averages = float(updates > 0)
    return (
        all(np.all(x == -updates) for x in params)
        and all(np.all(x == averages) for x in buffers)
        and set(steps) == {updates}
    )


@contextmanager
def stepping(optimizer: lrfast.Optimizer) -> Iterator[None]:
    """Another thread steps meanwhile, with pauses."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                optimizer.step()
            except RuntimeError:  # copied just now
                time.sleep(0.0005)
            if optimizer.updates % 4 == 0:
                time.sleep(0.002)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


# ---- two threads ----------------------------------------------------------------------------------------------


def of_state_dict(optimizer: lrfast.Optimizer) -> bool:
    saved = optimizer.state_dict()
    states = saved["state"].values()
    buffers, steps = [state["momentum_buffer"] for state in states], [state["step"] for state in states]
    return is_whole([], buffers, steps, saved["updates"])


def of_copy(copied: lrfast.Optimizer) -> bool:
    params = list(copied.param_groups[0]["params"])
    buffers, steps = [s["momentum_buffer"] for s in copied.state], [s["step"] for s in copied.state]
    return is_whole(params, buffers, steps, copied.updates)


COPIES: dict[str, Callable[[lrfast.Optimizer], bool]] = {
    "state_dict": of_state_dict,
    "pickle": lambda o: of_copy(pickle.loads(pickle.dumps(o))),
    "deepcopy": lambda o: of_copy(copy.deepcopy(o)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_no_copy_is_a_mixture_of_two_steps(kind, plan_class):
    optimizer = counting()
    assert COPIES[kind](optimizer)
    whole = refused = 0
    with stepping(optimizer):
        while whole + refused < 6:
            try:
                assert COPIES[kind](optimizer)
                whole += 1
            except RuntimeError as error:
                assert "thread" in str(error)  # noqa: PT017
                refused += 1
    assert COPIES[kind](optimizer)


def test_a_copy_during_a_step_says_so(plan_class):
    """Whoever pickles is stopped in the middle, by a step."""
    optimizer = counting()

    class Between:
        def __reduce__(self):
            optimizer.step()
            return int, ()

    optimizer.note = Between()
    for copying in (pickle.dumps, copy.deepcopy):
        with pytest.raises(RuntimeError, match="mixture"):
            copying(optimizer)
    del optimizer.note
    assert pickle.loads(pickle.dumps(optimizer)).updates == 2


def test_whoever_comes_second_is_refused_at_once(plan_class):
    optimizer = counting()
    barrier, refused, done = threading.Barrier(4), [], []

    def work() -> None:
        barrier.wait()
        try:
            optimizer._plan.held().run(time.sleep, 0.2)
            done.append(1)
        except RuntimeError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(done) == 1
    assert len(refused) == 3
    optimizer.step()


def test_two_threads_that_step_make_whole_steps(plan_class):
    optimizer = counting()
    with stepping(optimizer):
        for _ in range(20):
            with suppress(RuntimeError):
                optimizer.step()
            time.sleep(0.001)
    assert of_copy(optimizer)


# ---- forks ----------------------------------------------------------------------------------------------------


def in_child(action: Callable[[], Any]) -> int:
    """Exit status of a forked child in which action is to succeed within seconds; it says what went wrong."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            action()
            status = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def works_or_says(optimizer: lrfast.Optimizer) -> None:
    """A whole step, or what to do; an optimizer with arrays of its own steps in any case."""
    try:
        before = optimizer.updates
        optimizer.step()
        assert optimizer.updates == before + 1
    except RuntimeError as error:
        for words in ("forked", "half updated", "checkpoint"):
            assert words in str(error), error  # noqa: PT017
        for action in (
            optimizer.state_dict,
            lambda: pickle.dumps(optimizer),
            lambda: setattr(optimizer, "stats", True),
        ):
            with pytest.raises(RuntimeError, match="forked"):
                action()
    other = counting()
    other.step()
    assert of_copy(other)


def test_fork_while_another_thread_steps(plan_class):
    optimizer = counting()
    optimizer.step()
    with lrfast.num_threads(2), stepping(optimizer):
        for _ in range(6):
            assert in_child(lambda: works_or_says(optimizer)) == 0
            time.sleep(0.0007)


def test_fork_while_another_thread_holds_it(plan_class):
    optimizer = counting(ema=0.5)
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with optimizer.use_ema():
            inside.set()
            leave.wait(60)

    def refused() -> None:
        with pytest.raises(RuntimeError, match="forked"):
            optimizer.step()
        works_or_says(optimizer)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(10)
    assert in_child(refused) == 0
    with pytest.raises(RuntimeError, match="changed places"):
        optimizer.step()
    leave.set()
    thread.join(10)
    optimizer.step()


def test_fork_inside_a_block_of_ones_own(plan_class):
    """Who forks goes on in both processes."""
    optimizer = counting(ema=0.5)

    def leave() -> None:
        block.__exit__(None, None, None)
        optimizer.step()
        assert of_copy(optimizer)

    block = optimizer.use_ema()
    block.__enter__()
    assert in_child(leave) == 0
    leave()


def test_fork_inside_a_schedule(plan_class):
    status = []

    def schedule(t: int) -> float:
        if t == 1 and not status:
            status.append(None)
            status[0] = in_child(optimizer.step)
        return 0.5

    param = np.zeros(3)
    optimizer = lrfast.SGD([param], grads=[np.ones(3)], lr=schedule)
    for _ in range(3):
        optimizer.step()
    assert status == [0]
    assert np.all(param == -1.5)
