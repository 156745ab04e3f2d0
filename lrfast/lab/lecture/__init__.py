"""The lecture on learning rates, executable: nine claims, each computed, pictured and judged on one page.

``run`` is what ``lrfast lecture`` calls. Each module ``l1_...`` to ``l9_...`` is a step of the story: its runs, its
numbers, its pictures and its text. They need the extra ``demo``, importing this package does not.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ..._engine.extra import require_extra

__all__ = ["STEPS", "run"]

STEPS = (
    "l1_bouncing",
    "l2_verdict",
    "l3_one_rate",
    "l4_sigma",
    "l5_forgetting",
    "l6_adam",
    "l7_burst",
    "l8_decay",
    "l9_warmup",
)
"""The modules of the steps, in the order of the page."""


def run(folder: Path) -> Path:
    """Compute all nine steps, write ``lecture.html`` and its pictures into ``folder`` (made if missing), print the
    claims, and return the path of the page.

    The same machine writes the same bytes on every run. Raises SystemExit, saying what to install, if a library of
    the extra ``demo`` is missing.
    """
    require_extra("the lecture", ("matplotlib", "scipy", "sklearn", "threadpoolctl"))
    import matplotlib

    from . import drawing
    from .lecture_html import write_page

    folder.mkdir(parents=True, exist_ok=True)
    lessons = []
    with matplotlib.rc_context(drawing.STYLE):
        for name in STEPS:
            lessons.append(import_module(f".{name}", __name__).lesson(folder))
            print(f"{lessons[-1].name} {'holds' if lessons[-1].holds else 'FAILS'}: {lessons[-1].title}")
    page = write_page(lessons, folder)
    print(page.resolve())
    return page
