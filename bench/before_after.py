"""Two versions of lrfast beside each other: what a change has cost, row by row.

    python bench/before_after.py OLD NEW --rows adam-1 gpt2-options  # wheels, or revisions, built first

Each is installed into a folder of its own and runs in a process of its own; the two take turns. The rounds of a row are
spread over several pairs of new processes, since where arrays happen to lie changes times by some percent. A round's
time is the best of a few timings, in processor time, so that other programs count little; a row tells the medians of
those, their minima, and the median of new / old round by round with half its interquartile range. It is met if the
median of new - old is at most 3 % or 10 ns, whichever is more. One thread.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from peers.shapes import make_arrays

SHORTEST, TIMINGS = 5e-3, 4  # seconds that a timing takes at least, by repeating its call; the best of so many counts
MODELS = {"many": "10,000 tensors", "mlp": "MLP", "gpt2": "GPT-2 small"}
SIZES = {"1": "1", "1k": "1024", "400k": "400000", "40M": "40000000"}
ROWS = (
    *(f"{rule}-{size}" for rule in ("adam", "sgd") for size in SIZES),
    *("adam-many", "adam-mlp", "gpt2-options", "gpt2-stats", "scheduled-1", "edited-1", "unbound-1", "unbound-mlp"),
    *("functional-1", "import", "wheel"),
)
IMPORT = "import numpy, time; t = time.process_time(); import lrfast; print(time.process_time() - t)"


def call_of(row: str) -> Callable[[], Any]:
    """What a row times, all arrays made."""
    import lrfast

    first, _, last = row.partition("-")
    case = MODELS[first] if first in MODELS else MODELS.get(last) or SIZES[last]
    params, grads = make_arrays(case, 1), make_arrays(case, 2)
    cls = lrfast.SGD if first == "sgd" else lrfast.Adam
    if first == "functional":
        states = np.zeros_like(params[0]), np.ones_like(params[0])
        return partial(lrfast.functional.adam, params[0], grads[0], *states, step=1000, lr=1e-6)
    if first == "unbound":
        return partial(cls(params, lr=1e-6).step, grads)
    if first == "scheduled":
        return cls(params, grads=grads, lr=lrfast.schedules.cosine(1e-6, steps=10**9)).step
    if first == "edited":
        optimizer = cls(params, grads=grads, lr=1e-6)
        group, step, rates = optimizer.param_groups[0], optimizer.step, itertools.cycle([1e-6, 2e-6])
        return lambda: (group.__setitem__("lr", next(rates)), step())
    if last == "options":
        copies = [np.zeros(p.shape, np.uint16) for p in params]  # the bits of bfloat16
        return cls(params, grads=grads, lr=1e-6, clip_norm=1.0, zero_grads=True, copy_to=copies).step
    return cls(params, grads=grads, lr=1e-6, stats=last == "stats").step


def sample(call: Callable[[], Any], repeats: int) -> float:
    """Seconds per call."""
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def sample_import(_: int) -> float:
    """Seconds of an import, in yet another process."""
    return float(run(sys.executable, "-P", "-S", "-c", IMPORT))


def work(row: str) -> None:
    """The other process: answers each number of repeats with the best time."""
    timing = sample_import if row == "import" else partial(sample, call_of(row))
    least = min(timing(1) for _ in range(5))
    gc.collect()
    gc.freeze()
    gc.disable()
    print(least, flush=True)
    for line in sys.stdin:
        print(min(timing(int(line)) for _ in range(TIMINGS)), flush=True)


class Version:
    """One of the two: installed into a folder, asked through a pipe."""

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir()
        wheel, self.label = Path(name), Path(name).name
        if not wheel.is_file():
            commit = run("git", "rev-parse", "--short", f"{name}^{{commit}}").strip()
            self.label = f"{name} ({commit})"
            (folder / "tree").mkdir()
            archive = subprocess.run(["git", "archive", commit], check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x", "-C", folder / "tree"], input=archive, check=True)
            build = ["wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder / "tree"]
            run(sys.executable, "-m", "pip", *build, env={**os.environ, "LRFAST_REQUIRE_EXT": "1"})
            (wheel,) = folder.glob("*.whl")
        run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", folder / "site", wheel)
        self.bytes = wheel.stat().st_size
        # Without `site`, which could bring an lrfast that is installed elsewhere.
        paths = os.pathsep.join([str(folder / "site"), str(Path(np.__file__).parents[1])])
        self.environment = {**os.environ, "LRFAST_NUM_THREADS": "1", "PYTHONPATH": paths}
        for variable in {"OPENBLAS_CORETYPE", "LRFAST_ISA"} & self.environment.keys():
            del self.environment[variable]
        show = "import json, lrfast; print(json.dumps(lrfast.show_config('dicts')))"
        self.config = json.loads(run(sys.executable, "-P", "-S", "-c", show, env=self.environment))
        self.label += f", lrfast {self.config['lrfast']}"
        assert Path(self.config["library"]).is_relative_to(folder), self.config

    def start(self, row: str, seed: int) -> float:
        """Seconds of one call in a new process; how long look-ups take depends on the seed of hashes, too."""
        command, pipe = [sys.executable, "-S", __file__, "--work", row], subprocess.PIPE
        environment = {**self.environment, "PYTHONHASHSEED": str(seed)}
        self.worker = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        return float(self.worker.stdout.readline())

    def ask(self, repeats: int) -> float:
        """Seconds per call."""
        self.worker.stdin.write(f"{repeats}\n")
        self.worker.stdin.flush()
        return float(self.worker.stdout.readline())


def run(*command: Any, **options: Any) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def measure(row: str, old: Version, new: Version, rounds: int, pairs: int) -> dict[str, Any]:
    """Seconds of both in every round, and what follows."""
    if row == "wheel":
        return {"row": row, "old": old.bytes, "new": new.bytes, "ratio": new.bytes / old.bytes}
    found: dict[Version, list[float]] = {old: [], new: []}  # seconds
    for pair in range(pairs):
        order = (old, new) if pair % 2 == 0 else (new, old)
        repeats = max(1, round(SHORTEST / max(version.start(row, pair) for version in order)))
        for i in range(rounds * pair // pairs, rounds * (pair + 1) // pairs):
            for version in order if i % 2 == 0 else order[::-1]:
                found[version].append(version.ask(repeats))
        for version in order:
            version.worker.communicate()
    couples = list(zip(found[old], found[new], strict=True))
    before, slower = median(found[old]), median(b - a for a, b in couples)
    low, ratio, high = quantiles([b / a for a, b in couples])
    result = {"row": row, "old": before, "new": median(found[new]), "ratio": ratio, "spread": (high - low) / 2}
    result |= {"least_old": min(found[old]), "least_new": min(found[new])}
    return {**result, "met": slower <= max(0.03 * before, 10e-9), "seconds": couples}


def line_of(result: dict[str, Any]) -> str:
    """A line of the table."""
    if "met" not in result:
        return f"| wheel | {result['old']:,} B | {result['new']:,} B | | | {result['ratio']:.3f} | |"
    numbers = " | ".join(f"{result[key] * 1e6:,.3f}" for key in ("old", "new", "least_old", "least_new"))
    ratio = f"{result['ratio']:.3f} ± {result['spread']:.3f}"
    return f"| {result['row']} | {numbers} | {ratio} | {'yes' if result['met'] else 'NO'} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pairs", type=int, default=5, help="pairs of processes that the rounds are spread over")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        old, new = Version(chosen.old, Path(folder) / "old"), Version(chosen.new, Path(folder) / "new")
        config = new.config
        print(f"Old: {old.label}. New: {new.label}.  ")
        print(f"{config['processor']}, {config['isa']}, compiler {config['compiler']}, {chosen.rounds} rounds.\n")
        print("| row | old, us | new, us | least old | least new | new / old | within 3 % or 10 ns |")
        print("|---|--:|--:|--:|--:|--:|---|", flush=True)
        results = []
        for row in chosen.rows:
            results.append(measure(row, old, new, chosen.rounds, chosen.pairs))
            print(line_of(results[-1]), flush=True)
    if chosen.json:
        facts = {"old": old.label, "new": new.label, "config": config, "old_config": old.config, "rows": results}
        chosen.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return int(any(not result.get("met", True) for result in results))


if __name__ == "__main__":
    sys.exit(work(sys.argv[2]) if sys.argv[1:2] == ["--work"] else main())
