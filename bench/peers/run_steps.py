"""lrfast beside every other way to do the same update on this processor.

    make bench-peers                          # everything; about half an hour
    python bench/peers/run_steps.py --cases 1024 MLP --rules adam

Per number of threads one process runs all contenders of a case alternately. Before a rule is timed, each contender's
result after three updates is compared with exact arithmetic; one that computes something else is reported, not timed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from processes import environment, use_processors, versions

PEERS = ("peer_lrfast", "peer_numpy", "peer_numba", "peer_torch", "peer_deepspeed", "peer_optax")
CASES = ("1", "256", "1024", "16384", "400000", "4000000", "40000000", "100000000")
MODELS = ("MLP", "10,000 tensors", "ResNet-50", "GPT-2 small")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=[*CASES, *MODELS], help="elements of one tensor, or models")
    parser.add_argument("--rules", nargs="+", default=["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write everything measured, with its provenance")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        (threads,) = chosen.threads
        chosen.worker.write_text(json.dumps(_work(chosen, threads)))
        return 0
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for threads in dict.fromkeys(chosen.threads):
            answer = Path(folder) / "answer.json"
            command = [sys.executable, __file__, "--worker", str(answer), "--threads", str(threads)]
            for option in ("cases", "rules", "peers"):
                command += [f"--{option}", *getattr(chosen, option)]
            subprocess.run([*command, "--rounds", str(chosen.rounds)], check=True, env=environment(threads))
            results += json.loads(answer.read_text())
    if chosen.json:
        from lrfast.lab.bench.report import provenance

        chosen.json.write_text(json.dumps({"provenance": {**provenance(), **versions()}, "results": results}, indent=1))
        print(f"\nwritten: {chosen.json}")
    return 0


def _work(chosen: argparse.Namespace, threads: int) -> list[dict[str, Any]]:
    use_processors(threads)
    from measure import accepted, measure, print_case

    peers = [importlib.import_module(name) for name in chosen.peers]
    results = []
    for rule in chosen.rules:
        names = accepted(peers, rule, threads)
        for case in chosen.cases:
            result = measure(peers, names, rule, case, threads, chosen.rounds)
            print_case(result)
            results.append(result)
    return results


if __name__ == "__main__":
    sys.exit(main())
