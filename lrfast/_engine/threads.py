"""How many threads a step may use: what the system grants this process, what the user asks for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["get_num_threads", "num_threads", "set_num_threads"]

_core: Any = None  # the extension, once there is one
_MAX_THREADS = 256  # LRF_POOL_MAX_THREADS


def get_num_threads() -> int:
    """Threads that a large step uses, the calling one included; small steps use one. 1 without the extension."""
    return 1 if _core is None else int(_core.get_threads())


def set_num_threads(n: int) -> None:
    """Let steps use n threads, 1 to 256, the calling one included. Results do not depend on it.

    The default is the least of: processors that this process may use, its cgroup's quota (rounded up), and
    ``LRFAST_NUM_THREADS`` or else ``OMP_NUM_THREADS``. It is found once, when lrfast is imported: a process that is
    pinned to fewer processors or gets a smaller quota later keeps its number until this is called, also when it is
    forked. Raises TypeError or ValueError.
    """
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n: expected a number of threads from 1 to {_MAX_THREADS}, got {n!r}")
    if not 1 <= n <= _MAX_THREADS:
        raise ValueError(f"n: expected a number of threads from 1 to {_MAX_THREADS}, got {n!r}")
    if _core is not None:
        _core.set_threads(int(n))


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """``with lrfast.num_threads(1): ...``: another number for a while, for all Python threads."""
    previous = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(previous)


def default_threads(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """The default of :func:`set_num_threads`; ``root`` is where the file system of the cgroups begins."""
    granted = min(_processors(), _cgroup_processors(root))
    for name in ("LRFAST_NUM_THREADS", "OMP_NUM_THREADS"):
        asked = environment.get(name, "").partition(",")[0].strip()  # OpenMP lists one number per nesting level
        if asked:
            if not (asked.isdecimal() and int(asked) >= 1):
                if name == "OMP_NUM_THREADS":
                    continue  # somebody else's variable
                raise ValueError(f"{name}: expected a number of threads >= 1, got {environment[name]!r}")
            granted = min(granted, int(asked))
            break
    return min(granted, _MAX_THREADS)


def start(core: Any) -> None:
    """Called once at import, with the extension: applies the default, and follows threadpoolctl if it is installed."""
    global _core
    _core = core
    core.set_threads(default_threads())
    try:
        import threadpoolctl
    except ImportError:
        return

    class Controller(threadpoolctl.LibController):  # type: ignore[misc]
        """Lets ``threadpool_limits`` and ``threadpool_info`` know the pool."""

        user_api = "lrfast"
        internal_api = "lrfast"
        filename_prefixes = ("_core",)
        check_symbols = ("lrfast_has_a_thread_pool",)

        def get_num_threads(self) -> int:
            return get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            set_num_threads(num_threads)

        def get_version(self) -> str:
            return str(core.version())

    threadpoolctl.register(Controller)


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _cgroup_processors(root: Path) -> int:
    """Processors that the quota of this process' cgroups amounts to, rounded up; large if there is none."""
    shares = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":  # version 2; beside version 1 it is "unified"
            for folder in _folders(root, "cgroup2", "", ("", "unified"), path):
                shares.append(_share(*_read(folder / "cpu.max").split()[:2]))
        elif "cpu" in controllers.split(","):
            for folder in _folders(root, "cgroup", "cpu", ("cpu", controllers), path):
                quota, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
                shares.append(_share(quota, period))
    least = min(shares, default=math.inf)
    return _MAX_THREADS if math.isinf(least) else math.ceil(least)


def _folders(root: Path, system: str, controller: str, usual: tuple[str, ...], path: str) -> Iterator[Path]:
    """Where a cgroup and those above it may be: below the usual places, and below those that are mounted."""
    for name in usual:
        yield from _upwards(root / "sys/fs/cgroup" / name, path)
    for line in _read(root / "proc/self/mountinfo").splitlines():
        place, mount = line.partition(" - ")[0].split(), line.partition(" - ")[2].split()
        if len(place) > 4 and len(mount) > 2 and mount[0] == system and controller in ("", *mount[2].split(",")):
            above = place[3].rstrip("/")  # the cgroup that is mounted
            inside = path.removeprefix(above) if path == above or path.startswith(f"{above}/") else ""
            yield from _upwards(root / place[4].lstrip("/"), inside)


def _upwards(base: Path, path: str) -> list[Path]:
    """The folder of a cgroup and those above it, any of which may limit it."""
    folder = base / path.strip("/")
    return [folder, *(parent for parent in folder.parents if parent == base or base in parent.parents)]


def _share(quota: str = "", period: str = "") -> float:
    """Processors that quota out of period microseconds amount to; "max", -1 and missing files mean no limit."""
    if not (quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0):
        return math.inf
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
