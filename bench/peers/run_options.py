"""What surrounds a step, beside the same in separate passes: clipping, zeroing, bfloat16 copies, statistics.

    make bench-peers                             # after the steps; some minutes
    python bench/peers/run_options.py --quick    # small cases, to see that it runs
    python bench/peers/run_options.py --without-torch

AdamW, float32. Per number of threads one process runs all contenders of a row alternately; before that, everybody's
results on a small network are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from processes import environment, use_processors, versions


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--without-torch", action="store_true")
    parser.add_argument("--json", type=Path, help="write everything measured, with its provenance")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        threads, most = chosen.threads
        use_processors(threads)
        import option_rows

        measured = option_rows.measure(threads, most, chosen.rounds, quick=chosen.quick, torch=not chosen.without_torch)
        chosen.worker.write_text(json.dumps(list(measured)))
        return 0
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for threads in dict.fromkeys(chosen.threads):
            answer = Path(folder) / "answer.json"
            command = [sys.executable, __file__, "--worker", str(answer), "--rounds", str(chosen.rounds)]
            command += ["--threads", str(threads), str(max(chosen.threads))]
            command += [f"--{flag}" for flag in ("quick", "without-torch") if vars(chosen)[flag.replace("-", "_")]]
            subprocess.run(command, check=True, env=environment(threads))
            rows += json.loads(answer.read_text())
    if chosen.json:
        from lrfast.lab.bench.report import provenance

        chosen.json.write_text(json.dumps({"provenance": {**provenance(), **versions()}, "rows": rows}, indent=1))
        print(f"\nwritten: {chosen.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
