"""tests/mutants.py judges the tests; here what it changes, and that what it lets pass is still there."""

from __future__ import annotations

import re

import judges
import mutants
import pytest
from mutations import mutants as mutants_of

C = """\
static int f(const double *x, size_t n) /* a < b */
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * 2;
    if (sum && !g(n))
        return -1;
    report(sum);
    return sum > 0.5 ? h(sum) : 0;
}
"""
C_LINES = """\
double sum = 1;
for (size_t i = 1; i < n; i++)
for (size_t i = 0; i <= n; i++)
for (size_t i = 0; i < n; i--)
;
sum -= x[i] * 2;
sum += x[i] / 2;
sum += x[i] * 3;
if (0)
if (1)
if (sum || !g(n))
if (sum && g(n))
if (sum && !(n))
return 1;
return -0;
(sum);
return sum >= 0.5 ? h(sum) : 0;
return sum > 1.0 ? h(sum) : 0;
return sum > 0.5 && 0 ? h(sum) : 0;
return sum > 0.5 || 1 ? h(sum) : 0;
return sum > 0.5 ? (sum) : 0;
return sum > 0.5 ? h(sum) : 1;
""".splitlines()

PYTHON = '''\
def f(self, x: int | None, *, strict: bool = False) -> float:
    """a < b and c"""
    if x is None or "a" not in self.names:
        raise ValueError(f"{x} < 1")
    self.x = x.copy()
    return -max(x, 2) if strict else np.abs(x) ** 2
'''
PYTHON_LINES = """\
def f(self, x: int | None, *, strict: bool = True) -> float:
if False:
if True:
if x is not None or "a" not in self.names:
if x is None and "a" not in self.names:
if x is None or "a" in self.names:
pass
self.x = x
return max(x, 2) if strict else np.abs(x) ** 2
return -min(x, 2) if strict else np.abs(x) ** 2
return -max(x, 3) if strict else np.abs(x) ** 2
return -max(x, 2) if False and strict else np.abs(x) ** 2
return -max(x, 2) if True or strict else np.abs(x) ** 2
return -max(x, 2) if strict else (x) ** 2
return -max(x, 2) if strict else np.abs(x) * 2
return -max(x, 2) if strict else np.abs(x) ** 3
""".splitlines()


@pytest.mark.parametrize(("file", "text", "lines"), [("f.c", C, C_LINES), ("f.py", PYTHON, PYTHON_LINES)])
def test_what_is_changed(file, text, lines):
    found = mutants_of(file, text)
    assert {mutant.name.split("  ->  ")[1].strip() for mutant in found} == set(lines)
    for mutant in found:
        changed = mutant.applied(text)
        assert changed != text
        assert changed.count("a < b") == 1


def test_a_file_that_no_one_changes_has_each_mutant_once():
    names = [mutant.name for mutant in mutants.choose(["src_c/norm.c", "lrfast/_engine/_core.pyx"])]
    assert len(names) == len(set(names)) > 400


def test_the_tests_that_mutants_meet_are_there():
    names = {*judges.IN_C, *judges.IN_PYTHON, *(name for names in judges.FIRST.values() for name in names)}
    assert [name for name in names if not (mutants.ROOT / f"tests/test_{name}.py").exists()] == []
    starts = [start for start in judges.FIRST if not list(mutants.ROOT.glob(f"{start}*"))]
    assert starts == []


def test_the_draw_is_that_of_the_day(monkeypatch):
    monkeypatch.setenv("LRFAST_TEST_LINE", "7")
    first = mutants.choose(["20"])
    assert len(first) == 20
    assert mutants.choose(["20"]) == first
    monkeypatch.setenv("LRFAST_TEST_LINE", "8")
    assert mutants.choose(["20"]) != first


def test_what_may_survive_is_there_and_says_why():
    reasons = mutants.known_mutants()
    files = sorted({name.partition(":")[0] for name in reasons})
    names = [mutant.name for mutant in mutants.of_files(files)]
    assert set(reasons) <= {*names, *map(mutants.all_of_line, names)}
    assert all(len(reason) > 20 for reason in reasons.values())
    listed = [line for line in mutants.KNOWN.read_text().splitlines() if "  ->  " in line]
    assert sorted(listed) == sorted(reasons), "a mutant without a reason, or twice"


def test_too_many_survivors_fail(capsys, monkeypatch):
    result = {"result": "killed", "by": "golden", "seconds": 1.0}
    killed = [{"mutant": f"a.c: {i}  ->  ;", **result} for i in range(77)]
    for survivors, failed in [(3, False), (4, False), (5, True)]:
        lost = [{"mutant": f"a.c: x{i}  ->  ;", **result, "result": "survived"} for i in range(survivors)]
        assert mutants.report([*killed, *lost]) == failed
    assert "survived: a.c: x4" in capsys.readouterr().out
    assert mutants.report([*killed, *lost[:4], {**lost[4], "result": "known"}]) == 0
    assert mutants.report([*killed, {**killed[0], "result": "broken", "by": "tests/test_a.py::test_b"}]) == 1
    few = [{"mutant": f"a.c: x{i}  ->  ;", **result, "result": "survived"} for i in range(3)]
    assert mutants.report(few) == 0


@pytest.mark.parametrize(
    ("code", "by"),
    [
        ("while true; do :; done", "name: no end"),
        ("sleep 1000 & exit 3", "name"),
        ("echo 'FAILED tests/test_a.py::test_b[c] - AssertionError'; exit 1", "tests/test_a.py::test_b[c]"),
        ("echo '  File \"/x/tests/test_a.py\", line 3 in test_b'; exit 1", "test_a.py::test_b: no end"),
    ],
)
def test_what_ended_a_mutant(code, by, tmp_path):
    with pytest.raises(judges.Failed, match=f"^{re.escape(by)}$"):
        judges.Tree(tmp_path).run(["sh", "-c", code], "name", 1)
    assert judges.Tree(tmp_path).run(["sh", "-c", "sleep 1000 & echo fine"], "name", 9) == "fine\n"


def test_a_test_that_fails_anyway_kills_nothing(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("def test_bad():\n    assert 0\ndef test_good():\n    pass\n")
    tree = judges.Tree(tmp_path)
    assert not tree.passes("tests/test_a.py::test_bad", "lrfast/a.py")
    assert tree.passes("test_a.py::test_good: no end", "lrfast/a.py")
    assert tree.passes("tests/test_a.py::test_good[a b]", "lrfast/a.py")


def test_golden_lines_of_a_rule_come_first():
    assert "amsgrad" in judges.FIRST_LINES["src_c/rules/adam.h"]
    assert all((mutants.ROOT / file).exists() for file in judges.FIRST_LINES)
    assert set(judges.OTHER_LINES) < {case.name for case in judges.golden.cases()}


def test_what_a_result_stands_on(tmp_path):
    for file in ("a.c", "tests/test_b.py", "tests/test_c.py", "tests/golden.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("as it was")

    def changed_by(result, by):
        files = []
        for file in tmp_path.rglob("*.*"):
            ends = set()
            for text in ("as it was", "as it is"):
                file.write_text(text)
                mutants.digest.cache_clear()
                ends.add(mutants.stands_on({"mutant": "a.c: x  ->  ;", "result": result, "by": by}, tmp_path))
            if len(ends) == 2:
                files.append(file.name)
        return sorted(files)

    assert changed_by("killed", "tests/test_b.py::test_x[1-2]") == ["a.c", "test_b.py"]
    assert changed_by("killed", "golden") == ["a.c", "golden.py"]
    assert changed_by("same code", "") == ["a.c"]
    assert changed_by("survived", "") == ["a.c", "test_b.py", "test_c.py"]
