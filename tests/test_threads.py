"""Steps on several threads, from Python: the same bits, and no harm in bad surroundings."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from functools import cache

import numpy as np
import pytest

import lrfast
from lrfast._engine import threads
from lrfast._engine.threads import default_threads

from arrays import make_grads, make_params, same_bits
from variants import VARIANTS

SIZES = [1_200_000, 5, 0, 1024, 70_001]  # elements: one that is worth waking threads for, and odd ones


# Made once, also for the children of a fork, in which they would take longer than the steps.
grads_of, params_of = cache(make_grads), cache(make_params)


@cache
def finite_grads(seed):
    return [np.nan_to_num(make_grads(n, np.float32, seed), posinf=1, neginf=-1) for n in SIZES]


def subject(seed=0):
    params = [params_of(n, np.float32, seed).copy() for n in SIZES]
    return lrfast.AdamW(params, lr=0.1), params


def digest(params):
    return hashlib.sha256(b"".join(p.tobytes() for p in params)).hexdigest()


def digest_after(steps, optimizer, params):
    for t in range(steps):
        optimizer.step(finite_grads(t))
    return digest(np.nan_to_num(p) for p in params)


@pytest.fixture(scope="module")
def expected():
    with lrfast.num_threads(1):
        return digest_after(3, *subject())


def python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
        cwd=os.path.dirname(__file__),
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 16])
def test_same_bits_for_any_number_of_threads(n, expected):
    with lrfast.num_threads(n):
        assert digest_after(3, *subject()) == expected
        for variant in ("momentum", "amsgrad", "rmsprop-centered-momentum"):
            assert all(same_bits(a, b) for a, b in zip(large(variant), on_one_thread(variant), strict=True))


def large(variant):
    """Two parameters that are worth waking threads for, after two steps."""
    params = [params_of(1_100_000, dtype).copy() for dtype in (np.float32, np.float64)]
    optimizer = VARIANTS[variant].make(params)
    for t in range(2):
        optimizer.step([grads_of(p.size, p.dtype, t) for p in params])
    return params


@cache
def on_one_thread(variant):
    with lrfast.num_threads(1):
        return large(variant)


# ---- how many ------------------------------------------------------------------------------------------------


def test_set_num_threads():
    before = lrfast.get_num_threads()
    with lrfast.num_threads(3):
        assert lrfast.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError), lrfast.num_threads(5):
            raise ZeroDivisionError
        assert lrfast.get_num_threads() == 3
    assert lrfast.get_num_threads() == before
    for bad, error in [(0, ValueError), (257, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="n: expected a number of threads from 1 to 256"):
            lrfast.set_num_threads(bad)
    assert lrfast.get_num_threads() == before


def cgroup(root, membership, files):
    for name, text in {"proc/self/cgroup": membership, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


QUOTAS = {
    "half a processor, version 2": ("0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    "one and a half": ("0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 2),
    "a parent's": (
        "0::/a/b\n",
        {"sys/fs/cgroup/a/cpu.max": "100000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"},
        1,
    ),
    "none": ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 256),
    "half a processor, version 1": (
        "4:cpu,cpuacct:/x\n1:name=systemd:/x\n",
        {"sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"},
        1,
    ),
    "version 1 without": (
        "4:cpu,cpuacct:/\n",
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
        256,
    ),
    "version 1, mounted by all its names": (
        "4:cpu,cpuacct:/x\n",
        {
            "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "version 1, a parent's, in the other order": (
        "4:cpuacct,cpu:/x/y\n",
        {
            "sys/fs/cgroup/cpuacct,cpu/x/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpuacct,cpu/x/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpuacct,cpu/x/y/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpuacct,cpu/x/y/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "version 1, mounted elsewhere, of a container that sees only itself": (
        "4:cpu,cpuacct:/docker/abc\n",
        {
            "proc/self/mountinfo": "31 25 0:28 /docker/abc /cgroups/processors ro shared:9 - cgroup c rw,cpu,cpuacct\n"
            "32 25 0:29 /docker/abc /cgroups/memory ro - cgroup c rw,memory\n",
            "cgroups/processors/cpu.cfs_quota_us": "100000\n",
            "cgroups/processors/cpu.cfs_period_us": "100000\n",
            "cgroups/memory/cpu.cfs_quota_us": "1\n",
            "cgroups/memory/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "version 2 beside version 1": (
        "1:name=systemd:/\n0::/x\n",
        {"sys/fs/cgroup/unified/x/cpu.max": "70000 100000\n"},
        1,
    ),
    "version 2, nested deeply, mounted elsewhere": (
        "0::/a/b/c/d\n",
        {
            "proc/self/mountinfo": "31 25 0:28 /a /groups rw - cgroup2 cgroup2 rw\n",
            "groups/b/cpu.max": "90000 100000\n",
            "groups/b/c/d/cpu.max": "max 100000\n",
        },
        1,
    ),
    "another's": ("0::/a\n", {"sys/fs/cgroup/ab/cpu.max": "1000 100000\n", "sys/fs/cgroup/cpu.max": "max 1\n"}, 256),
    "no cgroups": ("", {}, 256),
    "mounts that make no sense": ("0::/\n", {"proc/self/mountinfo": "1 2\n - cgroup2\n\n"}, 256),
    "nonsense": ("0::/\n", {"sys/fs/cgroup/cpu.max": "many 0\n"}, 256),
}


@pytest.mark.parametrize("kind", QUOTAS)
def test_default_follows_the_quota(kind, tmp_path):
    membership, files, granted = QUOTAS[kind]
    root = cgroup(tmp_path, membership, files)
    assert threads._cgroup_processors(root) == granted
    assert default_threads({}, root) == min(granted, len(os.sched_getaffinity(0)))


def test_who_is_pinned_later_says_so():
    """README: the number is found when lrfast is imported, in a forked worker as well."""
    code = """
        import os
        processors = os.sched_getaffinity(0)
        import lrfast
        before = lrfast.get_num_threads()
        os.sched_setaffinity(0, {min(processors)})
        assert lrfast.get_num_threads() == before
        if (child := os.fork()) == 0:
            os._exit(lrfast.get_num_threads())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == before
        lrfast.set_num_threads(len(os.sched_getaffinity(0)))
        assert lrfast.get_num_threads() == 1
    """
    unlimited = {"LRFAST_NUM_THREADS": "", "OMP_NUM_THREADS": ""}
    done = python(code, **unlimited)
    assert done.returncode == 0, done.stderr


def test_default_where_the_system_knows_no_affinity(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert default_threads({}, tmp_path) == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads({}, tmp_path) == 1


def test_default_follows_affinity_and_environment(tmp_path):
    processors = os.sched_getaffinity(0)
    assert default_threads({}, tmp_path) == len(processors)
    try:
        os.sched_setaffinity(0, {min(processors)})
        assert default_threads({}, tmp_path) == 1
    finally:
        os.sched_setaffinity(0, processors)
    assert default_threads({"LRFAST_NUM_THREADS": "1"}, tmp_path) == 1
    assert default_threads({"OMP_NUM_THREADS": "1,4"}, tmp_path) == 1
    assert default_threads({"OMP_NUM_THREADS": "auto"}, tmp_path) == len(processors)
    assert default_threads({"LRFAST_NUM_THREADS": "99999"}, tmp_path) == len(processors)
    assert default_threads({"LRFAST_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}, tmp_path) == min(2, len(processors))
    for bad in ("0", "-1", "two"):
        with pytest.raises(ValueError, match="LRFAST_NUM_THREADS: expected a number of threads >= 1"):
            default_threads({"LRFAST_NUM_THREADS": bad}, tmp_path)


def test_threadpoolctl_limits_it():
    import threadpoolctl

    with lrfast.num_threads(2):
        with threadpoolctl.threadpool_limits(1):
            assert lrfast.get_num_threads() == 1
        assert lrfast.get_num_threads() == 2
        (ours,) = [info for info in threadpoolctl.threadpool_info() if info["internal_api"] == "lrfast"]
        assert ours["num_threads"] == 2
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            assert lrfast.get_num_threads() == 2


# ---- surroundings --------------------------------------------------------------------------------------------

TASKS = """
    import os, numpy as np, lrfast
    def tasks():
        return len(os.listdir("/proc/self/task"))
    lrfast.set_num_threads(2)
    n = tasks()
"""


def test_threads_start_at_the_first_large_step():
    run = python(
        TASKS
        + """
    small, large = lrfast.SGD(np.zeros(1000)), lrfast.SGD(np.zeros(2 * 10**6))
    small.step(np.zeros(1000))
    assert tasks() == n
    large.step(np.zeros(2 * 10**6))
    assert tasks() == n + 1
    """
    )
    assert run.returncode == 0, run.stderr


def test_interpreter_exit_while_threads_sleep():
    run = python(TASKS + "    lrfast.SGD(np.zeros(2 * 10**6)).step(np.zeros(2 * 10**6)); print('stepped')")
    assert (run.returncode, run.stdout, run.stderr) == (0, "stepped\n", "")


def test_interpreter_exit_while_a_step_runs():
    run = python(
        TASKS
        + """
    import threading
    p, g = np.zeros(10**7), np.zeros(10**7)
    optimizer = lrfast.SGD(p, grads=g)
    def work():
        while True:
            optimizer.step()
    threading.Thread(target=work, daemon=True).start()
    import time; time.sleep(0.1)
    """
    )
    assert (run.returncode, run.stderr) == (0, "")


def step_in_child(connection=None):
    lrfast.set_num_threads(2)
    result = digest_after(3, *subject())
    if connection:
        connection.send(result)
    return result


def test_fork_after_threaded_steps(expected):
    with lrfast.num_threads(2):
        assert digest_after(3, *subject()) == expected
        for _ in range(100):
            child = os.fork()
            if child == 0:
                os._exit(0 if step_in_child() == expected else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_fork_during_a_step(expected):
    """The child of a process that is in the middle of a step can use optimizers of its own."""
    stop = threading.Event()
    optimizer = lrfast.SGD(np.zeros(3_000_000), grads=np.zeros(3_000_000))

    def work():
        while not stop.is_set():
            optimizer.step()

    with lrfast.num_threads(2):
        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(10):
                child = os.fork()
                if child == 0:
                    os._exit(0 if step_in_child() == expected else 1)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method, expected):
    with lrfast.num_threads(2):
        assert digest_after(3, *subject()) == expected
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=step_in_child, args=(theirs,))
    process.start()
    assert ours.poll(60)
    assert ours.recv() == expected
    process.join(60)
    assert process.exitcode == 0


def test_four_python_threads_step_four_optimizers(expected):
    results = []
    with lrfast.num_threads(2):
        threads = [threading.Thread(target=lambda: results.append(digest_after(3, *subject()))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert results == [expected] * 4


def test_affinity_narrowed_while_running(expected):
    processors = os.sched_getaffinity(0)
    with lrfast.num_threads(2):
        optimizer, params = subject()
        digest_after(1, *subject(1))
        try:
            for task in os.listdir("/proc/self/task"):
                os.sched_setaffinity(int(task), {min(processors)})
            assert digest_after(3, optimizer, params) == expected
        finally:
            for task in os.listdir("/proc/self/task"):
                os.sched_setaffinity(int(task), processors)


@pytest.mark.skipif(lrfast.available_isas()[0] == "numpy", reason="NumPy decides when the GIL is released")
@pytest.mark.parametrize("call", ["step", "functional"])
def test_others_run_during_a_step(call):
    """Nobody is made to hand over the GIL here: another thread runs only where it is released."""
    stop, turns, before = threading.Event(), [0], sys.getswitchinterval()
    param, grad = np.zeros(4_000_000, np.float32), np.ones(4_000_000, np.float32)
    states = np.zeros_like(param), np.zeros_like(param)
    optimizer = lrfast.Adam([param], grads=[grad])

    def act():
        if call == "step":
            optimizer.step()
        else:
            lrfast.functional.adam(param, grad, *states, step=1)

    def count():
        while not stop.wait(1e-4):
            turns[0] += 1

    other = threading.Thread(target=count)
    other.start()
    act()  # the first time more happens than a step
    sys.setswitchinterval(1000)
    try:
        first, acts = turns[0], 0
        while turns[0] == first and acts < 200:  # on a busy machine it may have no processor for a while
            act()
            acts += 1
        assert turns[0] > first
    finally:
        sys.setswitchinterval(before)
        stop.set()
        other.join()
