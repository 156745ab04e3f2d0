"""The Monitor: what it records, in bounded memory; its files and its figure; minimum or saddle."""

from __future__ import annotations

import csv
import json
import math
import sys

import numpy as np
import pytest
from runs import BOWL, START, Quadratic, follow

import lrfast
from lrfast import SGD, Adam
from lrfast.diagnose.verdict import WINDOW


def test_a_record_holds_loss_and_statistics_of_its_step():
    point = np.array(START)
    optimizer = Adam(point, lr=0.01, clip_norm=1.0)
    monitor = lrfast.Monitor(optimizer)
    for loss in (3, np.float32(2.5)):
        optimizer.step(BOWL * point)
        monitor.update(loss)
    rows, total = monitor.records, optimizer.stats["total"]
    assert [(row["update"], row["loss"], row["skipped"]) for row in rows] == [(1, 3.0, False), (2, 2.5, False)]
    assert {key: value for key, value in total.items() if key != "rates"}.items() <= rows[1].items()
    assert rows[1]["clip_factor"] == optimizer.report.clip_factor < 1
    assert math.isnan(rows[0]["cosine"])
    with pytest.raises(TypeError, match="loss: expected a number, got 'low'"):
        monitor.update("low")


@pytest.mark.parametrize(("stats", "recorded"), [(False, [1, 2, 3, 4]), ("norms", [1, 2, 3, 4]), (2, [2, 4])])
def test_statistics_are_turned_on_where_they_are_not(stats, recorded):
    point = np.array(START)
    optimizer = SGD(point, lr=1e-3, stats=stats)
    monitor = lrfast.Monitor(optimizer)
    for _ in range(4):
        optimizer.step(BOWL * point)
        monitor.update(1.0)
    assert [row["update"] for row in monitor.records] == recorded
    assert not math.isnan(monitor.records[-1]["cosine"])


def test_skipped_steps_are_recorded():
    point = np.array(START)
    optimizer = SGD(point, lr=1e-3, nonfinite="skip")
    monitor = lrfast.Monitor(optimizer)
    for t in range(20):
        optimizer.step(BOWL * point * (np.inf if t >= 10 else 1))
        monitor.update(math.nan if t >= 10 else 1.0)
    assert [row["skipped"] for row in monitor.records] == [False] * 10 + [True] * 10
    assert not np.isfinite(monitor.records[-1]["grad_norm"])
    verdict = monitor.verdict()
    assert verdict.kind == "nonfinite"
    assert "10 were skipped" in verdict.text


def test_memory_is_bounded_and_the_latest_stay():
    steps = 5 * WINDOW + 3
    updates = [row["update"] for row in follow(Quadratic(BOWL), START, steps, lr=1e-3).records]
    assert len(updates) <= 2 * WINDOW + 1
    assert updates[-WINDOW:] == list(range(steps - WINDOW + 1, steps + 1))
    old = updates[:-WINDOW]
    assert old == list(range(1, steps - WINDOW + 1, old[1] - old[0]))
    assert len(old) > WINDOW // 2


@pytest.fixture
def with_nan():
    point = np.array(START)
    optimizer = SGD(point, lr=1e-3)
    monitor = lrfast.Monitor(optimizer)
    for loss in (2.0, math.nan, math.inf):
        optimizer.step(BOWL * point)
        monitor.update(loss)
    return monitor


def test_json_lines(with_nan, tmp_path):
    with_nan.write_jsonl(tmp_path / "run.jsonl")
    lines = (tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [row["loss"] for row in rows] == [2.0, None, None]
    assert rows[0]["cosine"] is None
    last = with_nan.records[2]
    assert rows[2] == {key: value if math.isfinite(value) else None for key, value in last.items()}
    assert rows[2]["grad_norm"] == last["grad_norm"] > 0


def test_csv(with_nan, tmp_path):
    with_nan.write_csv(tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == ["2.0", "nan", "inf"]
    assert rows[0].keys() == with_nan.records[0].keys()
    assert float(rows[2]["grad_norm"]) == with_nan.records[2]["grad_norm"]


def test_plot(with_nan, tmp_path):
    pytest.importorskip("matplotlib")
    with_nan.plot(tmp_path / "run.svg")
    drawn = (tmp_path / "run.svg").read_bytes()
    assert b"<svg" in drawn
    with_nan.plot(str(tmp_path / "again.svg"))
    assert (tmp_path / "again.svg").read_bytes() == drawn
    with pytest.raises(ValueError, match="at least one record"):
        lrfast.Monitor(SGD(np.zeros(2), lr=1.0)).plot(tmp_path / "empty.svg")


def test_missing_libraries_are_named(with_nan, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "lrfast.diagnose.figures", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"] or ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"matplotlib: pip install 'lrfast\[demo\]'"):
        with_nan.plot(tmp_path / "run.svg")
    monkeypatch.setitem(sys.modules, "scipy.sparse.linalg", None)
    critical = follow(Quadratic([1.0, 2.0]), START, 500, lr=0.1)
    with pytest.raises(ModuleNotFoundError, match=r"SciPy: pip install 'lrfast\[demo\]'"):
        critical.verdict(gradient=lambda params: params)


# ---- minimum or saddle ---------------------------------------------------------------------------------------


def critical(h, *, dtype=np.float64, **options):
    """A run that has arrived at the critical point (1, 1, ...) of a quadratic; it starts away from it where h > 0."""
    h = np.asarray(h, dtype)
    point = np.where(abs(h) > 0.5, 3, 1).astype(dtype)
    point[h < 0] = 1
    optimizer = SGD(point, lr=0.1, **options)
    monitor = lrfast.Monitor(optimizer)
    for _ in range(300):
        monitor_loss = float((h * (point - 1) ** 2).sum() / 2)
        optimizer.step(h * (point - 1))
        monitor.update(monitor_loss)
    return monitor, point, h


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "h"),
    [("minimum", [1.0]), ("minimum", [1, 10]), ("minimum", [0, 0, 1, 2]), ("saddle", [1, -1]),
     ("saddle", [*np.linspace(1, 9, 60), -0.1])],
)  # fmt: skip
def test_minimum_or_saddle(kind, h, dtype):
    pytest.importorskip("scipy")
    monitor, point, h = critical(h, dtype=dtype)
    assert monitor.verdict().kind == "critical"
    before = point.copy()
    verdict = monitor.verdict(lambda p: h * (p - 1))
    assert verdict.kind == kind
    assert verdict.evidence["smallest"] == pytest.approx(float(h.min()), abs=1e-2 * float(h.max()))
    assert verdict.evidence["largest"] == pytest.approx(float(h.max()), rel=1e-2)
    assert point.tobytes() == before.tobytes()


def test_a_hessian_that_is_not_diagonal():
    pytest.importorskip("scipy")
    hessian = np.array([[1.0, 3.0], [3.0, 1.0]])  # eigenvalues -2 and 4
    point = np.array([2.0, 2.0])
    monitor = lrfast.Monitor(optimizer := SGD({"w": point}, lr=0.1))
    for _ in range(100):
        optimizer.step({"w": hessian @ point})
        monitor.update(point @ hessian @ point / 2)
    verdict = monitor.verdict(lambda params: {"w": hessian @ params["w"]})
    assert verdict.kind == "saddle"
    assert verdict.evidence["smallest"] == pytest.approx(-2, rel=1e-3)


def test_gradient_may_write_into_the_bound_arrays_and_fail():
    pytest.importorskip("scipy")
    points, grads = [np.full(3, 2.0), np.full((2, 2), -1.0)], [np.zeros(3), np.zeros((2, 2))]
    monitor = lrfast.Monitor(optimizer := SGD(points, grads=grads, lr=0.1, maximize=True))

    def gradient(params):
        for param, grad in zip(params, grads, strict=True):
            np.multiply(param, -1.0, out=grad)

    for _ in range(200):
        gradient(points)
        optimizer.step()
        monitor.update(-sum((p * p).sum() for p in points) / 2)
    before = [array.tobytes() for array in points + grads]
    assert monitor.verdict(gradient).kind == "minimum"
    assert [array.tobytes() for array in points + grads] == before

    def failing(params):
        gradient(params)
        raise RuntimeError("out of data")

    with pytest.raises(RuntimeError, match="out of data"):
        monitor.verdict(failing)
    assert [array.tobytes() for array in points + grads] == before


def test_gradient_is_not_asked_where_nothing_is_critical():
    monitor = follow(Quadratic(BOWL), START, 100, lr=0.01)
    assert monitor.verdict(lambda params: pytest.fail("asked")).kind == "bouncing"


def test_calls_that_would_record_nothing_are_refused():
    with pytest.raises(TypeError, match="optimizer of lrfast, got ndarray"):
        lrfast.Monitor(np.ones(3))
    optimizer = lrfast.SGD(np.ones(3))
    monitor = lrfast.Monitor(optimizer)
    optimizer.step(np.ones(3))
    monitor.update(1.0)
    with pytest.raises(ValueError, match="there was none"):
        monitor.update(1.0)
    optimizer.stats = False
    optimizer.step(np.ones(3))
    with pytest.raises(ValueError, match="turned off"):
        monitor.update(1.0)


def test_one_skipped_step_at_the_end_is_normal():
    param = np.array([1.0, 2.0])
    optimizer = lrfast.SGD(param, lr=0.01, nonfinite="skip")
    monitor = lrfast.Monitor(optimizer)
    for t in range(60):
        grad = param * np.array([1.0, 5.0])
        optimizer.step(grad if t < 59 else np.full(2, np.nan))
        monitor.update(float(grad @ param) / 2)
    assert monitor.verdict().kind == "descending"
