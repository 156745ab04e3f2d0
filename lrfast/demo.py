"""``lrfast demo``: every optimizer trains a small classifier on real digits; a table, and a page with pictures."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _lecture
from ._digits import load_digits
from ._training import CONTESTANTS, Result, time_steps, train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["run"]

_EXTRA = ("matplotlib", "rich", "sklearn")


def run(folder: Path, *, quick: bool = False) -> Path:
    """Train, measure, draw, and print a table and the path of the page, which is returned.

    Writes ``index.html`` and its pictures (SVG) into ``folder``, made if missing. ``quick``: one short training per
    optimizer in place of five of 30 epochs. All but the times depends on fixed seeds only. Raises SystemExit, saying
    what to install, if a library of the extra ``demo`` is missing.
    """
    _require_extra()
    from ._figures import draw_lecture, draw_training
    from ._page import write_page

    runs, epochs, rounds = (1, 8, 20) if quick else (5, 30, 100)
    folder.mkdir(parents=True, exist_ok=True)
    with _progress() as progress:
        task = progress.add_task("", total=len(CONTESTANTS) * (runs * epochs + 1))

        def advance() -> None:
            progress.advance(task)

        results = [_result(contestant, runs, epochs, rounds, progress, task, advance) for contestant in CONTESTANTS]
    descents = _lecture.bouncing(), _lecture.crawling(), _lecture.adaptive()
    draw_training(results, folder)
    draw_lecture(*descents, folder)
    page = write_page(results, *descents, folder)
    _print_table(results)
    print(page.resolve())
    return page
