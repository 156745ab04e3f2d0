"""No memory at one allocation of a call after the other: it is done wholly or not at all, and all goes on.

A program: test_nomemory.py runs it, with the name of a plan, which allocations (first, and every so many), and calls.
For the plan "c" it is calloc and realloc that fail where the extension calls them: nomemory.c has to be preloaded.
"""

import _testcapi
import ctypes
import faulthandler
import sys

import interrupts
import test_interrupts

from lrfast._engine import backend, numpy_plan

faulthandler.enable()
if sys.argv[1] == "numpy":
    backend.Plan = numpy_plan.Plan

FIRST, EVERY = int(sys.argv[2]), int(sys.argv[3])
NAMES = sys.argv[4:]


def failing_at(n, action, optimizer):
    """Whether the n-th allocation of an action was asked for; it fails, and those after it do not."""
    try:
        fail_from(n)
        action(optimizer)
    except MemoryError:
        return True
    except BaseException as error:  # which made something else of it
        has_failed()
        return str(error) or True
    finally:
        failed = has_failed()
    return failed


def fail_from(n):
    if sys.argv[1] == "c":
        ctypes.CDLL(None).fail_at(n)
    else:
        _testcapi.set_nomemory(n, n + 1)


def has_failed():
    """From now on nothing does. Of Python's allocations nobody knows."""
    if sys.argv[1] == "c":
        return ctypes.CDLL(None).fail_at(0) == 0
    _testcapi.remove_mem_hooks()
    return False


for name in NAMES:
    make, action = test_interrupts.ACTIONS[name]
    expected = test_interrupts.outcomes(make, action)
    n, misses = FIRST, 0
    while misses < 3:
        optimizer = make()
        misses = 0 if failing_at(n, action, optimizer) else misses + 1
        n += EVERY
        seen = interrupts.but_scheduled(interrupts.observed(optimizer))
        same = [then for now, then in expected if now == seen]
        if not same:
            print(name, n, "half of it was done:", test_interrupts.differences(seen, expected), flush=True)
            sys.exit(1)
        test_interrupts.next_step(optimizer)
        assert interrupts.observed(optimizer) in same, (name, n)
    print(name, n, flush=True)
