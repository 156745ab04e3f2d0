"""``lrfast demo``: every optimizer trains a small classifier on real digits; a table, and a page with pictures."""

from __future__ import annotations

from pathlib import Path

from ..._engine.extra import require_extra
from .. import lecture
from ..digits import load_digits
from ..training import CONTESTANTS, FIRST_SEED, Result, time_steps, train

__all__ = ["run"]


def run(folder: Path, *, quick: bool = False) -> Path:
    """Train, measure, draw, and print a table and the path of the page, which is returned.

    Writes ``index.html``, ``lecture.html`` and their pictures into ``folder``, which is made if missing. ``quick``
    means one training of 10 epochs per optimizer in place of five of 30. Everything but the times follows from fixed
    seeds. Raises SystemExit, saying what to install, if a library of the extra ``demo`` is missing.
    """
    require_extra("the demo", ("matplotlib", "rich", "sklearn", "threadpoolctl"))
    from .curves import draw_training
    from .index_html import write_page

    folder.mkdir(parents=True, exist_ok=True)
    results = _results(runs=1, epochs=10, rounds=20) if quick else _results(runs=5, epochs=30, rounds=100)
    draw_training(results, folder)
    lecture.run(folder)
    page = write_page(results, folder)
    _print_table(results)
    print(page.resolve())
    return page


def _results(*, runs: int, epochs: int, rounds: int) -> list[Result]:
    """One result per contestant, under a progress bar."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description:<27}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    results = []
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(CONTESTANTS) * runs * epochs)
        for contestant in CONTESTANTS:
            progress.update(task, description=contestant.name)
            histories = [
                train(
                    contestant, load_digits(seed), epochs=epochs, seed=seed, after_epoch=lambda: progress.advance(task)
                )
                for seed in range(FIRST_SEED, FIRST_SEED + runs)
            ]
            results.append(Result(contestant, tuple(histories), time_steps(contestant, rounds=rounds)))
        progress.update(task, description="done")
    return results


def _print_table(results: list[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="digits: accuracy in %, time per step in microseconds")
    table.add_column("optimizer")
    for heading in ("train", "test", "lrfast", "NumPy", "ratio"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            result.contestant.name,
            f"{100 * result.final('train_accuracy'):.1f}",
            f"{100 * result.final('test_accuracy'):.1f}",
            *result.step_time.columns(),
        )
    Console().print(table)
