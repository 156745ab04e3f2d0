"""The specification gives the hashes of golden.txt; test_c.py compares what the kernels give with the same file."""

from __future__ import annotations

import pytest

import golden

CASES = {case.name: case for case in golden.cases()}


@pytest.mark.matrix(3)
@pytest.mark.parametrize("name", CASES)
def test_hashes_are_those_of_the_reference(name):
    expected, found = golden.read(), golden.hashes(CASES[name])
    assert golden.lines(found, expected) == "".join(
        f"{line} {known}\n" for line, known in expected.items() if line in found
    ), "python tests/golden.py writes them anew"


def test_the_file_has_the_lines_of_all_cases():
    """Each name once: what a line tells is seen above and in test_c.py."""
    names = [line.split()[0] for line in golden.FILE.read_text(encoding="utf-8").splitlines()]
    types = [f"{dtype}-{copy}" for dtype in golden.DTYPES for copy in golden.COPIES]
    kinds = [types if c.with_options else golden.FORMATS if c.with_formats else golden.DTYPES for c in CASES.values()]
    expected = [f"{case.name}-{kind}" for case, of_case in zip(CASES.values(), kinds, strict=True) for kind in of_case]
    assert sorted(names) == sorted(expected)
