"""The benchmark command: every row is there, on paper and in JSON. What the rows say depends on the machine."""

from __future__ import annotations

import json
import math

import pytest

import lrfast
from lrfast._engine import backend
from lrfast._engine.threads import default_threads
from lrfast.cli import main
from lrfast.lab.bench import costs as costs_module
from lrfast.lab.bench.costs import Cost
from lrfast.lab.bench.report import line

needs_kernels = pytest.mark.skipif(backend.compiled() is None, reason="costs of a step are those of compiled kernels")
needs_two = pytest.mark.skipif(default_threads({}) < 2, reason="needs two processors")


def bench(folder, *arguments):
    assert main(["bench", "--rounds", "1", "--json", str(folder / "bench.json"), *arguments]) == 0
    return json.loads((folder / "bench.json").read_text())


@needs_kernels
@needs_two
def test_costs(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(costs_module, "_THREAD_SIZES", (1, 400_000))
    monkeypatch.setattr(costs_module, "_MANY", 100)
    threads = lrfast.get_num_threads()
    written = bench(tmp_path, "--parts", "costs")
    printed = capsys.readouterr().out
    assert lrfast.get_num_threads() == threads
    assert written["results"] == []
    assert written["provenance"]["isa"] == lrfast.isa()
    costs = {cost["name"]: cost for cost in written["costs"]}
    assert len(costs) == len(written["costs"])
    assert all(math.isfinite(cost["value"]) and name in printed for name, cost in costs.items())
    for words, unit, goal in [
        ("step(grads)", "us", None),
        ("cosine lr", "us", 1),
        ("100 tensors of 100", "ns", 30),
        ("relative to live ones", "x", 1.2),
        ("denormal elements", "", 0),
        ("processor time", "ms", 1),
        ("fork and join", "us", 5),
        ("2 threads relative to 1", "x", 1.05),
        ("Adam, 400,000 elements: time on 2 threads", "x", 0.556),
        ("all processors", "x", 1.3),
        ("import lrfast", "ms", 30),
    ]:
        (cost, *_) = [cost for name, cost in costs.items() if words in name]
        assert (cost["unit"], cost["goal"]) == (unit, goal), words
    for rule in ("momentum", "adam"):
        assert costs[f"{rule}, gradients 0 for 100,000 steps: denormal elements of the state"]["value"] == 0


def test_steps_alone(tmp_path, capsys):
    written = bench(tmp_path, "--parts", "steps", "--rules", "adam", "--sizes", "7")
    assert written["costs"] == []
    assert [(r["rule"], r["size"]) for r in written["results"]] == [("adam", 7)]
    assert "what else" not in capsys.readouterr().out


def test_reference_has_no_costs(tmp_path, capsys):
    with lrfast.use_isa("numpy"):
        assert bench(tmp_path, "--parts", "costs")["costs"] == []
    assert "no other costs" in capsys.readouterr().out


def test_a_missed_goal_is_said():
    assert "missed" in line(Cost("slow", 1.1, "us", 1.0))
    assert "missed" not in line(Cost("fast", 1.0, "us", 1.0)) + line(Cost("open", 9.9, "us"))
