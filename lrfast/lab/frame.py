"""The frame that all pages share: one HTML file beside its pictures, nothing from the network."""

from __future__ import annotations

from html import escape

import lrfast

__all__ = ["fill", "what_ran"]


def fill(title: str, body: str, style: str = "") -> str:
    """A page that needs nothing from the network; ``style`` comes after its own."""
    return _PAGE.replace("TITLE", escape(title)).replace("STYLE", style).replace("BODY", body)


def what_ran() -> str:
    """Which kernels, as HTML."""
    isa = lrfast.isa()
    return "no compiled kernels, the NumPy reference ran" if isa == "numpy" else f"{escape(isa)} kernels"


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; font: 1rem/1.55 system-ui, sans-serif; color: #1f2933;
       background: #fff; }
h1 { font-size: 1.9rem; margin: 1rem 0; }
h2 { font-size: 1.4rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid #d5dade; }
h3 { font-size: 1.1rem; margin: 1.8rem 0 .3rem; }
h4 { font-size: .95rem; font-weight: 600; margin: .5rem 0 .3rem; }
p { max-width: 46rem; margin: .4rem 0; }
.small, figcaption { font-size: .9rem; color: #52606d; }
code { font: .85em/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
figure { margin: .8rem 0 1.5rem; }
.panels { display: grid; gap: .8rem 1.5rem; }
.panels img { width: 100%; max-width: 26rem; height: auto; display: block; }
@media (min-width: 50rem) {
  .n3 { grid-template-columns: repeat(3, 1fr); }
  .n2 { grid-template-columns: repeat(2, 26rem); }
}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .8rem; border-bottom: 1px solid #e1e5e8; text-align: right; vertical-align: top; }
thead th { font-weight: 600; font-size: .9rem; color: #52606d; vertical-align: bottom; white-space: nowrap; }
thead th[colspan] { text-align: center; }
tbody th { font-weight: 600; }
th:first-child:not([colspan]) { text-align: left; }
thead tr:last-child th { text-align: right !important; }
tbody code { display: block; font-weight: 400; color: #52606d; }
@media (max-width: 40rem) {
  h1 { font-size: 1.6rem; }
  table { width: 100%; font-size: .82rem; }
  th, td { padding: .35rem .25rem; }
  thead th { font-size: .8rem; }
  tbody code { font-size: .65rem; }
}
STYLE</style>
BODY
</html>
"""
