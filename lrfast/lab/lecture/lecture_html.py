"""The page of the lecture, ``lecture.html``: the table of claims, then the nine lessons."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import lrfast

from ..frame import fill, what_ran
from .lesson import Lesson
from .player import SCRIPT, STYLE

__all__ = ["write_page"]


def write_page(lessons: Sequence[Lesson], folder: Path) -> Path:
    """Write ``lecture.html`` into the folder of the pictures; returns its path."""
    body = _introduction(lessons) + "".join(_section(lesson) for lesson in lessons)
    body += f"<script>{SCRIPT}</script>"
    path = folder / "lecture.html"
    text = fill("Learning rates in nine steps", body, STYLE + _WORDS)
    path.write_text(text, encoding="utf-8")
    return path


def _introduction(lessons: Sequence[Lesson]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><a href="#{lesson.name}">{lesson.name}</a></th><td>{escape(lesson.claim)}</td>'
        f'<td data-label="Measured">{lesson.measured}</td>'
        f'<td data-label="Holds">{"yes" if lesson.holds else "<b>no</b>"}</td></tr>'
        for lesson in lessons
    )
    return f"""
<h1>Learning rates in nine steps</h1>
<p>Why does training get stuck, why does one learning rate not fit all parameters, what do Adagrad, RMSProp and Adam do
about it, and why do decay and warm-up help? Each step is a claim, and each claim was computed when this page was
written, by lrfast in double precision from fixed seeds. &eta; is the learning rate; &sigma; is the size of a
parameter's gradients, by which the adaptive methods divide it; an update is one step of an optimizer.</p>
<p class="small">Computed by <code>lrfast lecture</code>, lrfast {escape(lrfast.__version__)}: {what_ran()}.</p>
<div class="scroll"><table class="words claims"><thead><tr><th scope="col"></th><th scope="col">claim</th>
<th scope="col">measured</th><th scope="col">holds</th></tr></thead><tbody>{rows}</tbody></table></div>
"""


def _section(lesson: Lesson) -> str:
    return f'<h2 id="{lesson.name}">{lesson.name} &ensp;{lesson.title}</h2>{lesson.body}\n'


_WORDS = """
.words td, .words thead tr th { text-align: left !important; }
.words td { min-width: 3rem; }
.claims { max-width: 68rem; }
@media (max-width: 40rem) {
  thead th { white-space: normal; }
  .words thead { display: none; }
  .words tr { display: block; padding: .5rem 0; border-bottom: 1px solid #e1e5e8; }
  .words th, .words td { display: block; border: 0; padding: .1rem 0; font-size: .9rem; }
  .words td[data-label]::before { content: attr(data-label) ": "; color: #52606d; }
}
"""
