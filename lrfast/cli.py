"""``lrfast demo | lecture | bench | info``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import config
from ._engine.threads import num_threads
from ._version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of the command ``lrfast`` and of ``python -m lrfast``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="lrfast", description="The optimizer step as a library.")
    parser.add_argument("--version", action="version", version=f"lrfast {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="train on handwritten digits with every optimizer and show the result")
    demo.add_argument(
        "folder", nargs="?", type=Path, default=Path("lrfast-demo"), help="where to write (default: lrfast-demo)"
    )
    demo.add_argument("--quick", action="store_true", help="a few epochs only")

    lecture = commands.add_parser("lecture", help="why learning rates matter: nine claims, computed and shown")
    lecture.add_argument(
        "folder", nargs="?", type=Path, default=Path("lrfast-lecture"), help="where to write (default: lrfast-lecture)"
    )

    about = "Time steps beside the same updates in NumPy and a loop that only streams, all in turns in one process."
    _add_bench_arguments(
        commands.add_parser("bench", description=about, help="time steps beside NumPy and the memory's speed")
    )

    commands.add_parser("info", help="what was built and what runs")

    chosen = parser.parse_args(arguments)
    if chosen.command == "info":
        config.show_config()
    elif chosen.command == "demo":
        from .lab.demo import run

        run(chosen.folder, quick=chosen.quick)
    elif chosen.command == "lecture":
        from .lab.lecture import run as run_lecture

        run_lecture(chosen.folder)
    else:
        _bench(chosen)
    return 0


def _add_bench_arguments(bench: argparse.ArgumentParser) -> None:
    from .lab.bench import DTYPES, HEADLINE, PARTS, RULES, SIZES

    isas = config.available_isas()
    bench.add_argument("--rules", nargs="+", choices=RULES, default=HEADLINE, metavar="RULE", help=", ".join(RULES))
    bench.add_argument("--sizes", nargs="+", type=_count, default=SIZES, metavar="N", help="elements per tensor")
    bench.add_argument(
        "--dtypes", nargs="+", choices=DTYPES, default=("float32",), metavar="DTYPE", help=", ".join(DTYPES)
    )
    bench.add_argument("--isas", nargs="+", choices=isas, default=(config.isa(),), metavar="ISA", help=", ".join(isas))
    bench.add_argument("--rounds", type=_count, default=5, help="medians are over this many (default: 5)")
    bench.add_argument(
        "--threads", type=_count, default=1, metavar="N", help="of lrfast alone, in the table (default: 1)"
    )
    bench.add_argument("--all", action="store_true", help="every rule, dtype and instruction set")
    bench.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help="steps: the table; costs: all else"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="also write everything with its provenance")


def _count(text: str) -> int:
    """An integer from 1 on, as an argument."""
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text}")
    return n


def _bench(chosen: argparse.Namespace) -> None:
    from .lab import bench
    from .lab.bench.costs import line, measure

    rules = bench.RULES if chosen.all else chosen.rules
    dtypes = bench.DTYPES if chosen.all else chosen.dtypes
    isas = config.available_isas() if chosen.all else chosen.isas
    if chosen.json:
        chosen.json.touch()  # so that a path that cannot be written is known before everything is measured
    config.show_config()
    results, costs = [], []
    if "steps" in chosen.parts:
        print(f"\none bound step(), {chosen.threads} thread{'s' if chosen.threads > 1 else ''}:\n")
        with num_threads(chosen.threads):
            results = list(bench.run(rules, chosen.sizes, dtypes, isas, chosen.rounds))
        bench.report(results)
    if "costs" in chosen.parts:
        print("\nwhat else a step costs, float32:" if config.core() else "\nno other costs: they need compiled kernels")
        for cost in measure(chosen.rounds):
            print(line(cost), flush=True)
            costs.append(cost)
    if chosen.json:
        chosen.json.write_text(bench.to_json(results, costs) + "\n", encoding="utf-8")
        print(f"\nwritten: {chosen.json}")
