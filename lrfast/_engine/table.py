"""The table ``src_c/optimizers.def``, read as text, so that it is known without the extension as well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]
_RULE = re.compile(
    r"^LRF_RULE\((?P<id>\d+), (?P<constant>\w+), (?P<name>\w+), (?P<family>\w+),"
    r"\s*STATES\((?P<states>[^)]*)\),\s*FLAGS\((?P<flags>[^)]*)\),\s*DEFAULTS\((?P<defaults>[^)]*)\)\)",
    re.MULTILINE,
)
_RANGE = re.compile(
    r'^LRF_RANGE\((?P<name>\w+), "(?P<words>[^"]+)", (?P<least>[^,]+), (?P<largest>[^)]+)\)', re.MULTILINE
)
_NUMBER = re.compile(
    r"^LRF_NUMBER\((?P<name>\w+), (?P<range>\w+), (?P<schedulable>\w+), (?P<setting>[^)]+)\)", re.MULTILINE
)
_ELEMENT = re.compile(
    r"^LRF_ELEMENT\(\w+, (?P<name>\w+), (?P<largest>[^,]+), (?P<smallest>[^,]+), (?P<least_eps>[^)]+)\)", re.MULTILINE
)
_CARRIED = re.compile(r"^LRF_CARRIED\((?P<rule>\w+), (?P<slot>\d), (?P<name>\w+), (?P<range>\w+)\)", re.MULTILINE)
_CONSTANT = re.compile(r"^LRF_CONSTANT\((?P<name>\w+), (?P<range>\w+)\)", re.MULTILINE)
_FLAG = re.compile(r"^LRF_FLAG\((?P<bit>\d+), (?P<constant>\w+), (?P<setting>\w+), (?P<value>[^)]+)\)", re.MULTILINE)


class Rule(NamedTuple):
    """A row of the table.

    ``states`` holds a name or None by slot, ``defaults`` the numbers that the rule reads, ``carried`` names of the
    numbers that each tensor carries from step to step.
    """

    id: int
    name: str
    family: str
    states: tuple[str | None, ...]
    defaults: dict[str, float]
    carried: tuple[str, ...]

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the states that exist, in slot order."""
        return tuple(name for name in self.states if name)

    @property
    def squares(self) -> str | None:
        """The state of sums or averages of squares, if there is one: once infinite, an element of it never recovers."""
        return self.states[1]


class Range(NamedTuple):
    """Where a number may lie, both ends included."""

    words: str
    least: float
    largest: float


class Element(NamedTuple):
    """What an element type holds: the largest and the smallest double that it rounds neither to infinity nor to 0, and
    the least eps."""

    largest: float
    smallest: float
    least_eps: float


class Number(NamedTuple):
    """A double of a group in C, and the ``setting`` of the user that it comes from ("betas[0]")."""

    name: str
    range: Range
    schedulable: bool
    setting: str


class Flag(NamedTuple):
    """A bit of a group in C, set where the ``setting`` of the user has the ``value``."""

    bit: int
    setting: str
    value: bool | str


def _find_table() -> Path:
    """Installed beside the header; in a checkout that was not built, in src_c/."""
    for path in (_PACKAGE / "include" / "optimizers.def", _PACKAGE.parent / "src_c" / "optimizers.def"):
        if path.is_file():
            return path
    raise ImportError(f"lrfast is incomplete: {_PACKAGE / 'include' / 'optimizers.def'} is missing; reinstall it")


def _rules(text: str) -> dict[str, Rule]:
    rules = {}
    for row in _RULE.finditer(text):
        states = tuple(None if s.strip() == "NULL" else s.strip().strip('"') for s in row["states"].split(","))
        defaults = {name: float(value) for name, value in re.findall(r"\.(\w+) = ([^,\s]+)", row["defaults"])}
        carried = tuple(c["name"] for c in _CARRIED.finditer(text) if c["rule"] == row["constant"])
        rules[row["name"]] = Rule(int(row["id"]), row["name"], row["family"], states, defaults, carried)
    return rules


_TEXT = _find_table().read_text(encoding="utf-8")
RULES: dict[str, Rule] = _rules(_TEXT)
RANGES: dict[str, Range] = {
    row["name"]: Range(row["words"], float.fromhex(row["least"]), float.fromhex(row["largest"]))
    for row in _RANGE.finditer(_TEXT)
}
ELEMENTS: dict[str, Element] = {
    row["name"]: Element(float.fromhex(row["largest"]), float.fromhex(row["smallest"]), float(row["least_eps"]))
    for row in _ELEMENT.finditer(_TEXT)
}
NUMBERS: dict[str, Number] = {
    row["name"]: Number(row["name"], RANGES[row["range"]], row["schedulable"] == "SCHEDULABLE", row["setting"])
    for row in _NUMBER.finditer(_TEXT)
}
FLAGS: dict[str, Flag] = {
    row["setting"]: Flag(int(row["bit"]), row["setting"], True if row["value"] == "True" else row["value"].strip('"'))
    for row in _FLAG.finditer(_TEXT)
}
"""By the setting that sets them."""

CARRIED: dict[str, Range] = {row["name"]: RANGES[row["range"]] for row in _CARRIED.finditer(_TEXT)}
"""Ranges of numbers that tensors carry from step to step."""

CONSTANTS: dict[str, Range] = {row["name"]: RANGES[row["range"]] for row in _CONSTANT.finditer(_TEXT)}
"""Ranges of numbers that only a constructor takes."""

NOT_NEGATIVE = frozenset({"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta", "exp_inf", "step_size"})
"""States that hold squares, or sizes."""

NUMBERS_OF: dict[str, tuple[str, ...]] = {
    setting: tuple(n.name for n in NUMBERS.values() if n.setting.partition("[")[0] == setting)
    for setting in dict.fromkeys(n.setting.partition("[")[0] for n in NUMBERS.values())
}
"""The numbers in C that a setting stands for where a class does not say otherwise; "betas" is two."""
