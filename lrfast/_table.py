"""The table src_c/optimizers.def, read as text, so that it is known without the extension as well."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).parent
_ROW = re.compile(
    r"LRF_RULE\((?P<id>\d+), (?P<constant>\w+), (?P<name>\w+), (?P<family>\w+),"
    r"\s*STATES\((?P<states>[^)]*)\),\s*FLAGS\([^)]*\),\s*DEFAULTS\((?P<defaults>[^)]*)\)\)"
)


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    ``states`` holds a name or None by slot, ``defaults`` the numbers that the rule reads.
    """

    id: int
    name: str
    family: str
    states: tuple[str | None, ...]
    defaults: dict[str, float]

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the states that exist, in slot order."""
        return tuple(name for name in self.states if name)


def _find_table() -> Path:
    """Installed beside the header; in a checkout that was not built, in src_c/."""
    for path in (_PACKAGE / "include" / "optimizers.def", _PACKAGE.parent / "src_c" / "optimizers.def"):
        if path.is_file():
            return path
    raise ImportError(f"lrfast is incomplete: {_PACKAGE / 'include' / 'optimizers.def'} is missing; reinstall it")


def _parse(text: str) -> dict[str, Rule]:
    rules = {}
    for row in _ROW.finditer(text):
        states = tuple(None if s.strip() == "NULL" else s.strip().strip('"') for s in row["states"].split(","))
        defaults = {name: float(value) for name, value in re.findall(r"\.(\w+) = ([^,\s]+)", row["defaults"])}
        rules[row["name"]] = Rule(int(row["id"]), row["name"], row["family"], states, defaults)
    return rules


RULES: dict[str, Rule] = _parse(_find_table().read_text(encoding="utf-8"))
