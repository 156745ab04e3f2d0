"""Where states lie: on cache lines, and in pages that nobody touches before the threads of the first step."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import lrfast
from lrfast._engine import backend
from lrfast._engine.threads import default_threads

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts pages as Linux does")

# More than 32 MiB: the C library always takes that much from the system, and never again from what was freed.
LARGE = 9_000_000  # float32


def subject():
    return lrfast.Adam(np.ones(LARGE, np.float32), grads=np.ones(LARGE, np.float32))


def states(optimizer):
    return [array for state in optimizer.state for array in state.values() if isinstance(array, np.ndarray)]


def resident_pages(array):
    """(in memory, all) of the pages that lie within an array."""
    first = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = (array.ctypes.data + array.nbytes - first) // mmap.PAGESIZE
    flags = np.zeros(pages, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mincore(
        ctypes.c_void_p(first), ctypes.c_size_t(pages * mmap.PAGESIZE), ctypes.c_void_p(flags.ctypes.data)
    )
    assert result == 0, os.strerror(ctypes.get_errno())
    return int(np.count_nonzero(flags & 1)), pages


@pytest.mark.parametrize("n", [1, 7, 1000, 8192, 100_003, 2_000_000])
def test_states_begin_on_cache_lines(n):
    params = [np.zeros(n + 1, dtype)[1:] for dtype in (np.float32, np.float64)]
    optimizer = lrfast.Adam(params, amsgrad=True)
    assert [array.ctypes.data % 64 for array in states(optimizer)] == [0] * 6


@linux
def test_no_page_of_a_large_state_exists_before_the_first_step():
    optimizer = subject()
    for array in states(optimizer):
        resident, pages = resident_pages(array)
        assert (resident, pages >= 8000) == (0, True)
    optimizer.step()
    for array in states(optimizer):
        resident, pages = resident_pages(array)
        assert resident == pages


def faults_of_worker():
    """Page faults of the pool's first thread, or 0 before it started."""
    for task in Path("/proc/self/task").iterdir():
        name, _, numbers = (task / "stat").read_text().partition("(")[2].rpartition(")")
        if name == "lrfast-1":
            return int(numbers.split()[7])
    return 0


@linux
@pytest.mark.skipif(backend.compiled() is None, reason="needs the pool of the compiled kernels")
@pytest.mark.skipif(default_threads({}) < 2, reason="needs two processors")
def test_threads_of_the_first_step_touch_their_part_of_the_state():
    """Several attempts, since on a busy machine the calling thread may have to do everything."""
    with lrfast.num_threads(2):
        for _ in range(20):
            optimizer = subject()
            before = faults_of_worker()
            optimizer.step()
            first = faults_of_worker()
            optimizer.step()
            later = faults_of_worker()
            if first - before >= 2 * LARGE * 4 // 2**21 // 4:  # a quarter of the states, in huge pages
                break
        else:
            pytest.fail("the pool's thread touched no state first in 20 attempts")
        assert later - first < first - before
