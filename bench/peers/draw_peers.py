"""Draws what run_steps.py measured: python bench/peers/draw_peers.py results.json [more.json ...] docs/

Three pictures: the share of the memory's speed over size, the time of each peer relative to lrfast over size, and what
a second thread brings over size.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#e69f00", "#56b4e9", "#555555", "#332288")
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.figsize": (7, 4.2),
    "font.size": 10,
    "grid.color": "#e6e9ec",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.dpi": 110,
    "svg.hashsalt": "lrfast",
}


def main(sources: list[Path], folder: Path) -> None:
    measured = [json.loads(source.read_text()) for source in sources]
    results = [result for run in measured for result in run["results"]]
    provenance = _provenance(measured[-1]["provenance"])
    single = sorted((r for r in results if r["case"].isdecimal() and r["elements"] >= 256), key=lambda r: r["elements"])
    with plt.rc_context(STYLE):
        _roofline([r for r in single if r["threads"] == 1], folder / "roofline.svg", provenance)
        _ratios([r for r in single if r["threads"] == 1 and r["rule"] == "adam"], folder / "peers.svg", provenance)
        _scaling(single, folder / "threads.svg", provenance)


def _provenance(found: dict[str, Any]) -> str:
    """Machine, compiler and commit in a line."""
    commit = (found["commit"] or "unknown")[:10]
    return f"{found['processor']}, compiler {found['compiler']}, {found['isa']}, lrfast {commit}, {found['time'][:10]}"


def _roofline(results: list[dict[str, Any]], path: Path, provenance: str) -> None:
    figure, axes = _axes("per cent of a loop that only streams", provenance)
    for rule, colour in zip(_rules(results), COLOURS, strict=False):
        own = [r for r in results if r["rule"] == rule]
        axes.plot(
            [r["elements"] for r in own], [100 * r["stream_ratio"] for r in own], color=colour, marker="o", label=rule
        )
    axes.axhline(100, color="#8a949e", linewidth=1)
    axes.set_ylim(bottom=0)
    _save(figure, axes, path)


def _ratios(results: list[dict[str, Any]], path: Path, provenance: str) -> None:
    figure, axes = _axes("time relative to lrfast (Adam, one thread)", provenance)
    names = [n for n in results[0]["ratio"] if n != "lrfast" and not n.startswith("stream")]
    for name, colour in zip(names, COLOURS, strict=False):
        own = [r for r in results if name in r["ratio"]]
        axes.plot([r["elements"] for r in own], [r["ratio"][name] for r in own], color=colour, marker="o", label=name)
    axes.axhline(1, color="#8a949e", linewidth=1)
    axes.set_yscale("log")
    axes.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    _save(figure, axes, path)


def _scaling(results: list[dict[str, Any]], path: Path, provenance: str) -> None:
    figure, axes = _axes("speed on all threads relative to one", provenance)
    for rule, colour in zip(_rules(results), COLOURS, strict=False):
        time = {(r["elements"], r["threads"]): r["median"]["lrfast"] for r in results if r["rule"] == rule}
        most = max(threads for _, threads in time)
        sizes = sorted({n for n, _ in time if (n, 1) in time and (n, most) in time})
        axes.plot(sizes, [time[n, 1] / time[n, most] for n in sizes], color=colour, marker="o", label=rule)
    axes.axhline(1, color="#8a949e", linewidth=1)
    axes.set_ylim(bottom=0)
    _save(figure, axes, path)


def _axes(label: str, provenance: str) -> Any:
    figure, axes = plt.subplots(layout="constrained")
    figure.supxlabel(provenance, fontsize=7, color="#8a949e")
    axes.set_xscale("log")
    axes.set_xlabel("elements of one float32 tensor")
    axes.set_ylabel(label)
    return figure, axes


def _rules(results: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(r["rule"] for r in results))


def _save(figure: Any, axes: Any, path: Path) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    *files, target = map(Path, sys.argv[1:])
    main(files, target)
