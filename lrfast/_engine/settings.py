"""Settings of an optimizer: what its groups say, what follows a schedule, and the numbers that C makes of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from . import checks
from .family import Family
from .table import FLAGS, NUMBERS_OF, RULES, Rule


class Settings:
    """The groups of an optimizer without their arrays.

    ``groups`` are the live dicts of ``param_groups``, with ``"params"`` a tuple of arrays; ``schedules`` per group what
    follows a schedule; ``rules`` the row of the table for each. ``known`` holds what each group said when it was last
    checked: where a group says something else now, somebody edited it.
    """

    def __init__(self, family: type[Family], defaults: Mapping[str, Any]) -> None:
        self.family = family
        self.defaults = dict(defaults)
        self.groups: list[dict[str, Any]] = []
        self.schedules: list[dict[str, Any]] = []
        self.rules: list[Rule] = []
        self.known: list[dict[str, Any]] = []
        hashable: Any = family  # as every class is, but mypy does not know
        self._kinds = kinds_of(hashable)
        self._follow: list[tuple[int, str, Any, tuple[str, ...]]] = []  # group, setting, schedule, its numbers in C
        self._restricted = False

    def append(self, own: Mapping[str, Any], count: int, t: int) -> None:
        """A group of ``count`` parameters, whose arrays come later; it begins after t updates. Raises TypeError or
        ValueError."""
        where = f"group {len(self.groups)}: "
        for key in own:
            self._refuse_unknown(key, where)
        settings = {**self.defaults, **own}
        scheduled = {key: value for key, value in settings.items() if _is_scheduled(key, value)}
        for key, schedule in scheduled.items():
            settings[key] = value_at(schedule, t)
        settings = self.checked(settings, where)
        self.restore({"params": (None,) * count, **settings}, scheduled)

    def restore(self, group: dict[str, Any], scheduled: dict[str, Any]) -> None:
        """A group that was checked before."""
        settings = {key: value for key, value in group.items() if key != "params"}
        self.groups.append(group)
        self.schedules.append(scheduled)
        self.rules.append(RULES[self.family.variant({**settings, **scheduled})])
        self.known.append(dict(group))

    def take_params(self, params: Sequence[Any]) -> None:
        """Gives groups that have none their parameters, of all in order."""
        first = 0
        for group, known in zip(self.groups, self.known, strict=True):
            stop = first + len(group["params"])
            if all(param is None for param in group["params"]):
                group["params"] = known["params"] = tuple(params[first:stop])
            first = stop

    def truncate(self, count: int) -> None:
        """Takes groups back."""
        for rows in (self.groups, self.schedules, self.rules, self.known):
            del rows[count:]

    def checked(self, settings: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Settings of one group in their plain form."""
        plain = {key: checks.setting(key, settings[key], self._kinds[key], where) for key in self.defaults}
        self.family.check(plain, where)
        return plain

    # ---- edits -----------------------------------------------------------------------------------------------

    def edited(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(group, what it says now) of those that say something new. Raises TypeError or ValueError."""
        for i, (group, known) in enumerate(zip(self.groups, self.known, strict=True)):
            if list(group) != list(known) or any(group[key] is not known[key] for key in known):
                yield i, self._check_edit(i, group, known)

    def accept(self, i: int, settings: Mapping[str, Any]) -> None:
        """Group i says this from now on."""
        self.known[i].update(settings)
        self.groups[i].update(settings)
        if list(self.groups[i]) != list(self.known[i]):  # a key was removed and put back
            self.known[i] = dict(self.groups[i])

    def other_structure(self, i: int, settings: Mapping[str, Any]) -> str | None:
        """The first of these settings for group i by which it would need other states, or give them another meaning."""
        before = {**self.known[i], **self.schedules[i]}
        after = {**settings, **self.schedules[i]}
        for key in settings:
            other = key in self.family.fixed and after[key] != before[key]
            if other or self.family.variant({**before, key: after[key]}) != self.rules[i].name:
                return key
        return None

    def _check_edit(self, i: int, group: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        where = f"group {i}: "
        for key in known:
            if key not in group:
                raise ValueError(f"{where}expected the option {key!r}, which was removed from param_groups")
        for key in group:
            if key not in known:
                self._refuse_unknown(key, where)
        if group["params"] is not known["params"]:
            raise ValueError(f"{where}params cannot be replaced; make a new optimizer or use add_param_group")
        settings = self.checked(group, where)
        for key in self.schedules[i]:
            if settings[key] != known[key]:
                raise ValueError(
                    f"{where}{key} follows a schedule and cannot be edited, got {group[key]!r}; to go on without it, "
                    "load the state_dict into a new optimizer"
                )
        other = self.other_structure(i, settings)
        if other is not None:
            raise ValueError(
                f"{where}{other} decides which state exists or what it means and cannot change after construction; "
                f"got {group[other]!r}"
            )
        return settings

    def _refuse_unknown(self, key: str, where: str) -> None:
        if key not in self.defaults:
            known = ", ".join(self.defaults)
            raise ValueError(f"{where}unknown option {key!r}; {self.family.__name__} has {known}")

    # ---- schedules -------------------------------------------------------------------------------------------

    def find_scheduled(self) -> bool:
        """Whether a setting follows a schedule; called once the groups are complete."""
        self._follow = [
            (i, key, schedule, names_of(key, self.family.numbers(group)))
            for i, (group, schedules) in enumerate(zip(self.groups, self.schedules, strict=True))
            for key, schedule in schedules.items()
        ]
        # A rate alone is in no combination that a family restricts.
        self._restricted = any(key != "lr" for _, key, *_ in self._follow)
        return bool(self._follow)

    def follow(self, t: int) -> list[tuple[int, dict[str, float]]]:
        """Writes the values after t updates into the groups; (group, numbers in C) that they stand for.

        All are checked before the first is written. Raises TypeError or ValueError.
        """
        values = []
        for i, key, schedule, names in self._follow:
            group, known = self.groups[i], self.known[i]
            if group.get(key) is not known[key]:
                self._check_edit(i, group, known)
            value = schedule(t) if callable(schedule) else value_at(schedule, t)
            try:
                values.append((i, key, checks.setting(key, value, self._kinds[key]), names))
            except (TypeError, ValueError) as error:
                raise type(error)(f"group {i}, schedule at t={t}: {error}") from None
        if self._restricted:
            for i in dict.fromkeys(i for i, *_ in values):
                own = {key: value for j, key, value, _ in values if j == i}
                self.family.check({**self.groups[i], **own}, f"group {i}, schedule at t={t}: ")
        changes = []
        for i, key, value, names in values:
            self.known[i][key] = self.groups[i][key] = value
            parts = value if type(value) is tuple else (value,)
            changes.append((i, dict(zip(names, parts, strict=True))))
        return changes

    # ---- for C -----------------------------------------------------------------------------------------------

    def lowered(self, i: int) -> tuple[dict[str, float], int]:
        """Numbers and flags of group i."""
        return lower(self.rules[i], self.known[i], self.family.numbers(self.known[i]))


def lower(rule: Rule, settings: Mapping[str, Any], renamed: Mapping[str, str]) -> tuple[dict[str, float], int]:
    """Settings of a group as (numbers, flags) of the C API.

    ``renamed`` maps a setting to the number that it stands for where the names differ.
    """
    flags = 0
    numbers: dict[str, float] = {}
    for key, value in settings.items():
        if key in FLAGS:
            flags |= FLAGS[key].bit if value == FLAGS[key].value else 0
        elif not isinstance(value, bool):
            names = names_of(key, renamed)
            values = value if isinstance(value, tuple) else (value,)
            numbers.update((name, x) for name, x in zip(names, values, strict=False) if name in rule.defaults)
    return numbers, flags


def names_of(key: str, renamed: Mapping[str, str]) -> tuple[str, ...]:
    """The numbers of the C API that one setting stands for; none for "params"."""
    return (renamed[key],) if key in renamed else NUMBERS_OF.get(key, ())


def value_at(schedule: Any, t: int) -> Any:
    """The value of a scheduled setting, or of a pair of which one at least is scheduled, after t completed updates."""
    if callable(schedule):
        return schedule(t)
    return tuple(part(t) if callable(part) else part for part in schedule)


@cache
def kinds_of(family: Any) -> dict[str, Any]:
    """Settings of a class, with the defaults of its constructor: a setting is of the kind of its default."""
    parameters = inspect.signature(family.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "grads"}


def _is_scheduled(key: str, value: Any) -> bool:
    if key not in checks.SCHEDULABLE:
        return False
    return callable(value) or (isinstance(value, (tuple, list)) and any(callable(part) for part in value))
