"""``lrfast demo | lecture | bench | info``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import config
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
    demo.set_defaults(run=_demo)

    lecture = commands.add_parser("lecture", help="why learning rates matter: nine claims, computed and shown")
    lecture.add_argument(
        "folder", nargs="?", type=Path, default=Path("lrfast-lecture"), help="where to write (default: lrfast-lecture)"
    )
    lecture.set_defaults(run=_lecture)

    about = "Time steps beside the same updates in NumPy and a loop that only streams, all in turns in one process."
    bench = commands.add_parser("bench", description=about, help="time steps beside NumPy and the memory's speed")
    _add_bench_arguments(bench)
    bench.set_defaults(run=_bench)

    info = commands.add_parser("info", help="what was built and what runs")
    info.set_defaults(run=_info)

    chosen = parser.parse_args(arguments)
    chosen.run(chosen)
    return 0


def _add_bench_arguments(bench: argparse.ArgumentParser) -> None:
    from .lab.bench import PARTS
    from .lab.bench.speed import DTYPES, HEADLINE, RULES, SIZES

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


def _demo(chosen: argparse.Namespace) -> None:
    from .lab import demo

    demo.run(chosen.folder, quick=chosen.quick)


def _lecture(chosen: argparse.Namespace) -> None:
    from .lab import lecture

    lecture.run(chosen.folder)


def _bench(chosen: argparse.Namespace) -> None:
    from .lab import bench
    from .lab.bench.speed import DTYPES, RULES

    bench.run(
        RULES if chosen.all else chosen.rules,
        chosen.sizes,
        DTYPES if chosen.all else chosen.dtypes,
        config.available_isas() if chosen.all else chosen.isas,
        rounds=chosen.rounds,
        threads=chosen.threads,
        parts=chosen.parts,
        file=chosen.json,
    )


def _info(chosen: argparse.Namespace) -> None:
    config.show_config()
