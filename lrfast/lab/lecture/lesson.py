"""What each of the nine lessons hands to the page."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Lesson", "number", "pictures", "power"]


@dataclass(frozen=True)
class Lesson:
    """A claim and what was measured. ``measured`` and ``body`` are HTML, the others plain text."""

    name: str
    title: str
    claim: str
    measured: str
    holds: bool
    body: str


def pictures(names: list[str], caption: str) -> str:
    """Pictures ``<name>.svg`` side by side where there is room, otherwise below one another, over one caption."""
    images = "".join(f'<div><img src="{name}.svg" alt="{caption}"></div>' for name in names)
    return f'<figure><div class="panels n{len(names)}">{images}</div><figcaption>{caption}</figcaption></figure>'


def number(value: float, digits: int = 2) -> str:
    """With so many significant digits, as HTML: 0.0016, 100, 1.3 · 10<sup>-145</sup>."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        text = f"{value:,.{digits}g}" if abs(value) < 10 ** (digits - 1) else f"{value:,.0f}"
        return text.replace("-", "&minus;")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa} &middot; {power(int(exponent))}".replace("-", "&minus;")


def power(exponent: int) -> str:
    """A power of ten as HTML."""
    return f"10<sup>{exponent}</sup>".replace("-", "&minus;")
