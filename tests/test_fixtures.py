"""What earlier releases pickled and saved loads, and goes on with the same bits. fixtures/make_fixtures.py wrote it."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest

import lrfast

from fixtures.make_fixtures import (
    EARLIER,
    LATER,
    OPTIMIZERS,
    SCHEDULES,
    TIMES,
    Run,
    fields_of,
    globals_of,
    params_of,
    watch,
)

RELEASES = sorted(path for path in (Path(__file__).parent / "fixtures").iterdir() if path.name[0].isdigit())
KINDS = {"optimizer", "schedule", "monitor", "fields", "stats", "names"}


def files(kind):
    """Parameters (path of the pickle, its facts) of all releases."""
    found = []
    for release in RELEASES:
        for path in sorted(release.glob("*.facts.pickle")):
            facts = pickle.loads(path.read_bytes())
            if facts["kind"] == kind:
                name = path.name.removesuffix(".facts.pickle")
                found.append(pytest.param(path.with_name(f"{name}.pickle"), facts, id=f"{release.name}-{name}"))
    return found


def load(path):
    if ("ml_dtypes", "bfloat16") in globals_of(path.read_bytes()):
        pytest.importorskip("ml_dtypes")
    return pickle.loads(path.read_bytes())


def case_of(path):
    return OPTIMIZERS[path.name.removeprefix("optimizer-").removesuffix(".pickle")]


def check(now, then, where=""):
    """All of `then` is in `now`, of the same type, to the bit; mappings may have got more keys."""
    if isinstance(then, np.ndarray):
        assert (now.dtype, now.shape, now.tobytes()) == (then.dtype, then.shape, then.tobytes()), where
    elif isinstance(then, dict):
        for key, value in then.items():
            check(now[key], value, f"{where}[{key!r}]")
    elif isinstance(then, (list, tuple)):
        assert (type(now), len(now)) == (type(then), len(then)), where
        for i, (a, b) in enumerate(zip(now, then, strict=True)):
            check(a, b, f"{where}[{i}]")
    else:
        same = now == then or (isinstance(then, float) and math.isnan(now) and math.isnan(then))
        assert type(now) is type(then), f"{where}: {now!r} is not of the type of {then!r}"
        assert same, f"{where}: {now!r} is not {then!r}"


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_every_release_has_all_kinds_of_files(release):
    pickles = {path.name for path in release.glob("*.pickle")}
    facts = {name for name in pickles if name.endswith(".facts.pickle")}
    assert {name.replace(".facts", "") for name in facts} == pickles - facts
    assert {pickle.loads((release / name).read_bytes())["kind"] for name in facts} == KINDS


def test_the_first_release_is_there_whole():
    ids = [param.id for kind in KINDS for param in files(kind) if param.id.startswith("0.1.0-")]
    assert len(ids) == 79
    classes = {param.values[1]["loaded"]["class"] for param in files("optimizer") if param.id.startswith("0.1.0-")}
    assert classes == {"SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "RAdam"}


@pytest.mark.parametrize(("path", "facts"), files("optimizer"))
def test_a_pickled_optimizer_is_what_it_was_and_goes_on(path, facts):
    run = Run(case_of(path), **load(path))
    assert type(run.optimizer) is getattr(lrfast, facts["loaded"]["class"])
    check(run.facts(), {**facts["loaded"], "measured": 0})
    check(run.optimizer.state_dict(), facts["saved"])
    run.steps(EARLIER, EARLIER + LATER)
    check(run.facts(), facts["later"])
    check(fields_of(run.optimizer.report), facts["report"])


@pytest.mark.parametrize(("path", "facts"), files("optimizer"))
def test_a_pickled_optimizer_can_be_pickled_again(path, facts):
    run = Run(case_of(path), **pickle.loads(pickle.dumps(load(path))))
    run.steps(EARLIER, EARLIER + LATER)
    check(run.facts(), facts["later"])


@pytest.mark.parametrize(("path", "facts"), files("optimizer"))
def test_a_state_dict_loads_into_a_new_optimizer_which_goes_on(path, facts):
    if "bfloat16" in (case_of(path).copies or ()):
        pytest.importorskip("ml_dtypes")
    run = Run(case_of(path))
    for own, param in zip(params_of(run.optimizer), facts["loaded"]["params"], strict=True):
        own[...] = param
    run.optimizer.load_state_dict(facts["saved"])
    saved = run.optimizer.state_dict()
    check(saved, facts["saved"])
    run.steps(EARLIER, EARLIER + LATER)
    skipped = facts["later"]["skipped"] - facts["loaded"]["skipped"]  # a state_dict does not count them
    check(run.facts(), {**facts["later"], "skipped": skipped})


@pytest.mark.parametrize(("path", "facts"), files("schedule"))
def test_a_pickled_schedule_has_the_same_values(path, facts):
    schedule = load(path)
    assert schedule == SCHEDULES[path.name.removeprefix("schedule-").removesuffix(".pickle")]
    assert [schedule(t) for t in TIMES] == pytest.approx(facts["values"], rel=1e-14, abs=1e-300)  # cos, pow: of libm


@pytest.mark.parametrize(("path", "facts"), files("monitor"))
def test_a_pickled_monitor_goes_on(path, facts):
    """Numbers that follow from the update before may be missing in its next record."""
    loaded = load(path)
    monitor, optimizer = loaded["monitor"], loaded["optimizer"]
    assert type(monitor) is lrfast.Monitor
    check(monitor.records, facts["records"])
    assert monitor.verdict().kind == facts["verdict"]
    watch(monitor, optimizer, 16, 20)
    for now, then in zip(monitor.records[len(facts["records"]) :], facts["later"], strict=True):
        check(now, {key: then[key] for key in ("update", "skipped", "elements", "clip_factor")})
        assert now["loss"] == pytest.approx(then["loss"], rel=1e-12)  # a product by BLAS


@pytest.mark.parametrize(("path", "facts"), files("fields"))
def test_a_pickled_result_has_its_fields(path, facts):
    """Report, Verdict, Sweep."""
    result = load(path)
    check(fields_of(result), facts["fields"])
    assert facts.get("text", str(result)) == str(result)


@pytest.mark.parametrize(("path", "facts"), files("stats"))
def test_pickled_statistics_have_their_numbers(path, facts):
    stats = load(path)
    assert type(stats) is type(lrfast.SGD(np.zeros(1)).stats)
    assert stats.updates == facts["updates"]
    check({key: stats[key] for key in stats}, facts["rows"])


@pytest.mark.parametrize(("path", "facts"), files("names"))
def test_pickled_names_are_the_public_objects(path, facts):
    for name, pickled in load(path).items():
        public = lrfast
        for part in name.split("."):
            public = getattr(public, part)
        assert pickle.loads(pickled) is public, name
