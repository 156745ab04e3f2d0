"""A path that moves: inline SVG, a slider, a button and forty lines of script, without anything from the network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from contourpy import contour_generator

from ..._engine.arithmetic import Array
from .surface import Surface

__all__ = ["SCRIPT", "STYLE", "Track", "player"]

_WIDTH, _HEIGHT = 430, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 42


@dataclass(frozen=True)
class Track:
    """One moving point: ``points`` (frames, 2) and a line of plain text for each frame."""

    colour: str
    points: Array
    texts: Sequence[str]


def player(
    surface: Surface,
    x: tuple[float, float, Sequence[float]],
    y: tuple[float, float, Sequence[float]],
    levels: Sequence[float],
    tracks: Sequence[Track],
    caption: str,
) -> str:
    """HTML of contours under moving points; x and y are (first, last, ticks). Without scripts it shows the end."""
    view = _View(x[:2], y[:2])
    last = len(tracks[0].texts) - 1
    inner = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM  # what lies outside is cut off
    shapes = [_contours(surface, view, levels), _ends(surface, view)]
    data = []
    for track in tracks:
        places = [f"{px:.1f},{py:.1f}" for px, py in view.place(track.points)]
        cx, cy = places[-1].split(",")
        kind = "track last" if track is tracks[-1] else "track"
        shapes.append(
            f'<polyline class="{kind}" points="{" ".join(places)}" stroke="{track.colour}"/>'
            f'<circle class="dot" cx="{cx}" cy="{cy}" r="5" fill="{track.colour}"/>'
        )
        data.append({"places": places, "texts": list(track.texts)})
    readouts = "".join(f'<p class="readout" style="color: {track.colour}">{track.texts[-1]}</p>' for track in tracks)
    return f"""<figure class="player"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{caption}">
{_ticks(view, x[2], y[2])}
<svg x="{_LEFT}" y="{_TOP}" width="{inner[0]}" height="{inner[1]}" viewBox="{_LEFT} {_TOP} {inner[0]} {inner[1]}">
{chr(10).join(shapes)}</svg></svg>
<div class="controls"><button type="button">Play</button>\
<input type="range" min="0" max="{last}" value="{last}" aria-label="position in the run"></div>
{readouts}<figcaption>{caption}</figcaption>
<script type="application/json">{json.dumps(data, separators=(",", ":"))}</script></figure>
"""


@dataclass(frozen=True)
class _View:
    """Where a point of the plane lies in the picture."""

    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, points: Any) -> Array:
        """Points (..., 2) in units of the picture; far outside is cut off, so that numbers stay short."""
        points = np.asarray(points, np.float64)
        across = (points[..., 0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (points[..., 1] - self.y[0]) / (self.y[1] - self.y[0])
        placed = [
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        ]
        clipped: Array = np.clip(np.stack(placed, axis=-1), -2_000, 2_000)
        return clipped


def _contours(surface: Surface, view: _View, levels: Sequence[float]) -> str:
    # A valley is narrow: points of the grid are dense around the middle of y.
    middle, half = sum(view.y) / 2, (view.y[1] - view.y[0]) / 2
    x, y = np.linspace(*view.x, 161), middle + half * np.linspace(-1, 1, 161) ** 3
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    generator = contour_generator(x, y, surface.loss(grid))
    paths = []
    for level in levels:
        for line in generator.lines(level):
            placed = view.place(line)
            paths.append("M" + "L".join(f"{px:.1f},{py:.1f}" for px, py in placed))
    return f'<path class="contours" d="{"".join(paths)}"/>'


def _ticks(view: _View, x: Sequence[float], y: Sequence[float]) -> str:
    bottom = _HEIGHT - _BOTTOM
    parts = [f'<path class="axes" d="M{_LEFT},{_TOP}V{bottom}H{_WIDTH - _RIGHT}"/>']
    for tick in x:
        px = view.place((tick, view.y[0]))[0]
        parts.append(f'<text x="{px:.1f}" y="{bottom + 17}" text-anchor="middle">{_signed(tick)}</text>')
    for tick in y:
        py = view.place((view.x[0], tick))[1]
        parts.append(f'<text x="{_LEFT - 5}" y="{py + 5:.1f}" text-anchor="end">{_signed(tick)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">x</text>')
    parts.append(f'<text x="10" y="{(_TOP + bottom) / 2:.1f}" text-anchor="middle">y</text>')
    return "".join(parts)


def _ends(surface: Surface, view: _View) -> str:
    (sx, sy), (mx, my) = view.place([surface.start, surface.minimum])
    return (
        f'<circle class="end" cx="{sx:.1f}" cy="{sy:.1f}" r="4"/>'
        f'<text x="{sx:.1f}" y="{sy - 9:.1f}" text-anchor="middle">start</text>'
        f'<circle class="end" cx="{mx:.1f}" cy="{my:.1f}" r="4"/>'
        f'<text x="{mx + 8:.1f}" y="{my + 18:.1f}">minimum</text>'
    )


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


STYLE = """
.player { max-width: 34rem; }
.player svg { width: 100%; height: auto; display: block; background: #f7fafc; }
.player text { font: 14px system-ui, sans-serif; fill: #1f2933; }
.player .contours { fill: none; stroke: #b1c7d9; }
.player .axes { fill: none; stroke: #8a949e; }
.player .track { fill: none; stroke-width: 4; stroke-linejoin: round; }
.player .track.last { stroke-width: 1.6; }
.player .end { fill: #1f2933; }
.player .dot { stroke: #fff; }
.controls { display: flex; gap: .6rem; align-items: center; margin: .5rem 0 .2rem; }
.controls input { flex: 1; min-width: 0; }
.controls button { font: inherit; min-width: 4.5rem; padding: .2rem .6rem; }
.readout { margin: 0; font-size: .9rem; font-variant-numeric: tabular-nums; }
"""

SCRIPT = """
for (const player of document.querySelectorAll(".player")) {
  const tracks = JSON.parse(player.querySelector("script").textContent);
  const lines = player.querySelectorAll(".track"), dots = player.querySelectorAll(".dot");
  const readouts = player.querySelectorAll(".readout");
  const slider = player.querySelector("input"), button = player.querySelector("button");
  let timer = null;
  function show() {
    const frame = Number(slider.value);
    tracks.forEach((track, i) => {
      const [x, y] = track.places[frame].split(",");
      lines[i].setAttribute("points", track.places.slice(0, frame + 1).join(" "));
      dots[i].setAttribute("cx", x);
      dots[i].setAttribute("cy", y);
      readouts[i].textContent = track.texts[frame];
    });
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  }
  function advance() {
    if (slider.value === slider.max) return pause();
    slider.value = Number(slider.value) + 1;
    show();
  }
  slider.addEventListener("input", () => { pause(); show(); });
  button.addEventListener("click", () => {
    if (timer !== null) return pause();
    if (slider.value === slider.max) slider.value = 0;
    show();
    button.textContent = "Pause";
    timer = setInterval(advance, 40);
  });
}
"""
