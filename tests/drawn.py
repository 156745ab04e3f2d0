"""Of a big matrix a run takes one line, drawn by date: all lines come round within days, and none costs every run.

LRFAST_TEST_LINE draws instead: with the number that a run has told, its lines once more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from typing import TypeVar
from zlib import crc32

T = TypeVar("T")


def number() -> int:
    """Number of the day; the first to ask decides, also for the processes that it starts."""
    return int(os.environ.setdefault("LRFAST_TEST_LINE", str(date.today().toordinal())))


def one_of(lines: Sequence[T]) -> T:
    """The line of the day."""
    return lines[number() % len(lines)]


def is_drawn(name: str, lines: int) -> bool:
    """Whether a case is in the line of the day when there are so many; it stays in its line whatever is added."""
    return crc32(name.encode()) % lines == number() % lines
