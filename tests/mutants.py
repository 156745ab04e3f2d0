"""Whether the tests notice when the sources are wrong: `python tests/mutants.py ...` builds and tests small mutations.

    all               every mutant of src_c/rules/ and scalars.c, and a drawn 400 of src_c/ and lrfast/_engine/
    20                so many of src_c/rules/ and scalars.c, drawn by date (drawn.py): what `make check` does
    src_c/norm.c ...  every mutant of these files

Two workers try one mutant after the other (judges.py). What happened is kept in build/mutants/ for as long as the
changed file and the test that decided are what they were, so that a run that was cut off goes on; what survived meets
all tests anew when one of them changes. Mutants that compile to the same code are none. known_mutants.txt lists others
that no test can notice, or need not, and why; they are not tried. The run fails if more than one in twenty of the
others survive, of few: more than three.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path

from judges import make_trees
from mutations import Mutant, mutants
from rings import ROOT

import drawn

FOLDER = ROOT / "build" / "mutants"
RESULTS = FOLDER / "results.jsonl"
KNOWN = ROOT / "tests" / "known_mutants.txt"
DRAWN = 400
WORKERS = 2


def main(words: list[str]) -> int:
    chosen = choose(words)
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = {result["mutant"]: result for result in read_results() if result["of"] == stands_on(result, ROOT)}
    reasons = known_mutants()
    for mutant in chosen:
        if mutant.name in reasons or all_of_line(mutant.name) in reasons:
            results[mutant.name] = {"mutant": mutant.name, "result": "known", "by": ""}
    waiting = [mutant for mutant in chosen if mutant.name not in results]
    print(
        f"{len(chosen)} mutants, {len(waiting)} of them to be judged; LRFAST_TEST_LINE={drawn.number()} draws the same",
        flush=True,
    )
    if waiting:
        trees = make_trees(FOLDER, min(WORKERS, len(waiting)))

        def work(mutant: Mutant) -> None:
            tree = trees.get()
            try:
                result = {"mutant": mutant.name, **tree.judge(mutant)}
                result["of"] = stands_on(result, tree.root)
            finally:
                trees.put(tree)
            results[mutant.name] = result
            with RESULTS.open("a") as lines:
                lines.write(json.dumps(result) + "\n")
            print(f"{result['result']:9} {result['seconds']:5.1f} s  {result['by']:45} {mutant.name}", flush=True)

        with ThreadPoolExecutor(WORKERS) as workers:
            list(workers.map(work, waiting))
    return report([results[mutant.name] for mutant in chosen])


def choose(words: list[str]) -> list[Mutant]:
    """The mutants that the words of the command ask for."""
    if not words:
        sys.exit(__doc__)
    if words[0] != "all" and not words[0].isdecimal():
        return of_files(words)
    core = sorted(path for path in ROOT.glob("src_c/**/*.[ch]") if path.name not in ("lrfast.h", "pool.h"))
    engine = sorted(path for path in ROOT.glob("lrfast/_engine/*.py*") if path.suffix != ".pyi")
    every = of_files([str(path.relative_to(ROOT)) for path in [*core, *engine]])
    chance = random.Random(drawn.number())
    rules = [mutant for mutant in every if mutant.file.startswith(("src_c/rules/", "src_c/scalars.c"))]
    if words[0].isdecimal():
        return chance.sample(rules, int(words[0]))
    others = [mutant for mutant in every if mutant not in set(rules)]
    return [*rules, *chance.sample(others, DRAWN)]


def of_files(files: list[str]) -> list[Mutant]:
    return [mutant for file in files for mutant in mutants(file, (ROOT / file).read_text(encoding="utf-8"))]


def read_results() -> list[dict]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def stands_on(result: dict, root: Path) -> str:
    """What a result is true for: the changed file and the test that decided, or all tests where none did."""
    decided = re.search(r"golden|test_\w+", result["by"])
    if result["result"] in ("survived", "broken"):
        return digest(root, result["mutant"].partition(":")[0], "test_*")
    return digest(root, result["mutant"].partition(":")[0], f"{decided[0]}.*" if decided else "none")


@cache
def digest(root: Path, file: str, tests: str) -> str:
    paths = [path for path in sorted((root / "tests").rglob(tests)) if path.suffix in (".c", ".py")]
    return sha256(b"".join(path.read_bytes() for path in [root / file, *paths])).hexdigest()[:16]


def known_mutants() -> dict[str, str]:
    """Mutant -> why it may survive. In the file the reason stands indented below one mutant or several; one that ends
    in "->  *" stands for all of its line."""
    reasons, names = {}, []
    for line in KNOWN.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith(" "):
            names = [line] if names and names[-1] in reasons else [*names, line]
        else:
            for name in names:
                reasons[name] = f"{reasons.get(name, '')} {line.strip()}".strip()
    return reasons


def all_of_line(mutant: str) -> str:
    return mutant.partition("  ->  ")[0] + "  ->  *"


def report(results: list[dict]) -> int:
    """Prints what became of them; 1 if too many survived."""
    counts: dict[str, Counter[str]] = {}
    for result in results:
        counts.setdefault(result["mutant"].partition(":")[0], Counter())[result["result"]] += 1
    words = ["killed", "survived", "known", "same code", "invalid", "broken"]
    print(f"\n{'':40}" + "".join(f"{word:>10}" for word in words))
    for file, count in counts.items():
        print(f"{file:40}" + "".join(f"{count[word]:10}" for word in words))
    total = sum(counts.values(), Counter())
    print(f"{'':40}" + "".join(f"{total[word]:10}" for word in words))
    survivors = [result["mutant"] for result in results if result["result"] == "survived"]
    for name in survivors:
        print(f"survived: {name}")
    judged = total["killed"] + total["survived"]
    endless = sum(result["by"].endswith("no end") for result in results)
    print(f"{total['killed'] / max(judged, 1):.1%} of {judged} killed, {endless} of them by the time they took")
    for result in results:
        if result["result"] == "broken":
            print(f"broken: {result['by']}: {result['mutant']}")
    return int(total["broken"] > 0 or total["survived"] > max(judged / 20, 3))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
