"""Settings of an optimizer: what its groups say, what follows a schedule, and the numbers that C makes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from . import checks, fit, further_keys
from .commit import Call
from .family import Family
from .further_keys import NAMES
from .table import FLAGS, NUMBERS_OF, RULES, Rule

# A setting that follows a schedule: (index of the group, its live dict, the known one, key, schedule, numbers of C that
# it stands for, whether every float in [0, 1) is in its range). A plain tuple: Python takes others apart slowly.
_Follower = tuple[int, dict[str, Any], dict[str, Any], str, Callable[[int], Any], tuple[str, ...], bool]


class Settings:
    """The groups of an optimizer without their arrays.

    ``groups`` is the list ``param_groups``, which the user may do anything to; ``live`` are the dicts that belong into
    it, with ``"params"`` a tuple of arrays, ``"param_names"`` theirs if they have names, and what users and schedulers
    keep there beside settings; ``schedules`` per group what follows a schedule; ``rules`` the row of the table for
    each. ``known`` holds what each group said when it was last checked: where a group says something else now, somebody
    edited it.
    """

    def __init__(self, family: type[Family], defaults: Mapping[str, Any]) -> None:
        self.family = family
        self.defaults = dict(defaults)
        self.groups: list[dict[str, Any]] = []
        self.schedules: list[dict[str, Any]] = []
        self.rules: list[Rule] = []
        self.known: list[dict[str, Any]] = []
        self.live: list[dict[str, Any]] = []
        hashable: Any = family  # as every class is, but mypy does not know
        self._kinds = kinds_of(hashable)
        self._followers: list[_Follower] = []
        self._restricted = False

    def copy(self) -> Settings:
        """Another of the same groups, to which more can be appended."""
        other = Settings(self.family, self.defaults)
        other.groups = self.groups
        for mine, its in zip(self._rows(), other._rows(), strict=True):
            its.extend(mine)
        return other

    def publish(self) -> Call:
        """What puts all groups into the list ``groups``."""
        return partial(self.groups.__setitem__, slice(None), list(self.live))

    def _rows(self) -> tuple[list[Any], ...]:
        return self.live, self.schedules, self.rules, self.known

    def append(self, own: Mapping[str, Any], count: int, t: int) -> None:
        """A group of ``count`` parameters, whose arrays come later; it begins after t updates. Raises TypeError or
        ValueError."""
        where = f"group {len(self.live)}: "
        further = {key: value for key, value in own.items() if key not in self.defaults}
        further_keys.check(further, self.family, self.defaults, where)
        if self.live and (NAMES in own) != (NAMES in self.live[0]):
            raise ValueError(f"{where}params: expected names for the parameters of all groups, or of none")
        settings = {**self.defaults, **own}
        scheduled = {key: value for key, value in settings.items() if _is_scheduled(key, value, self._kinds.get(key))}
        scheduled = {key: value if callable(value) else tuple(value) for key, value in scheduled.items()}
        for key, schedule in scheduled.items():
            settings[key] = value_at(schedule, t)
        settings = self.checked(settings, where)
        self.restore({"params": (None,) * count, **settings, **further}, scheduled)

    def restore(self, group: dict[str, Any], scheduled: dict[str, Any], known: dict[str, Any] | None = None) -> None:
        """A group as it is; ``known``: what of it was checked before, where that is not all."""
        known = dict(group) if known is None else known
        self.rules.append(RULES[self.family.variant({**known, **scheduled})])
        self.live.append(group)
        self.schedules.append(scheduled)
        self.known.append(known)

    def take_params(self, params: Sequence[Any]) -> None:
        """Gives groups that have none their parameters, of all in order."""
        first = 0
        for group, known in zip(self.live, self.known, strict=True):
            stop = first + len(known["params"])
            if all(param is None for param in known["params"]):
                group["params"] = known["params"] = tuple(params[first:stop])
            first = stop

    def check_fit(self, steps: Sequence[int]) -> None:
        """Refuses what does not fit the tensors, of which each group has its own; steps: updates of each so far."""
        first = 0
        for i, known in enumerate(self.known):
            stop = first + len(known["params"])
            self._check_fit(i, known, f"group {i}: ")
            for step in sorted({step + 1 for step in steps[first:stop]}):
                fit.scalars(self.family.spec, self.rules[i], known, self._narrowest(i), step, f"group {i}: ")
            first = stop

    def _check_fit(self, i: int, settings: Mapping[str, Any], where: str) -> None:
        fit.settings({key: settings[key] for key in self.defaults if key in settings}, self._narrowest(i), where)

    def _narrowest(self, i: int) -> fit.Type:
        return fit.narrowest(self.known[i]["params"])

    def check_groups(self) -> None:
        """Refuses a list of groups whose members were replaced, removed or joined by others."""
        checks.groups(self.groups, self.live)

    def checked(self, settings: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Settings of one group in their plain form."""
        plain = {key: checks.setting(key, settings[key], self._kinds[key], where) for key in self.defaults}
        self.family.check(plain, where)
        return plain

    def is_flag(self, key: str) -> bool:
        """Whether a setting is True or False, and False by default."""
        return self._kinds[key] is False

    # ---- edits -----------------------------------------------------------------------------------------------

    def edited(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(group, its new settings) of those that say something else now. Raises TypeError or ValueError."""
        self.check_groups()
        for i, (group, known) in enumerate(zip(self.live, self.known, strict=True)):
            if not checks.same_objects(group, known):
                yield i, self._check_edit(i)

    def accepting(self, i: int, new: Mapping[str, Any], plan: Any) -> list[Call]:
        """What makes group i say this from now on, and the plan know."""
        group, known = self.live[i], self.known[i]
        order, says = list(group), {**known, **new}
        if self._is_plain_rate(new) and order == list(known):
            numbers = {names_of("lr", self.family.numbers(known))[0]: new["lr"]}
            return [partial(plan.set, i, says, numbers), partial(group.update, new), partial(known.update, new)]
        self._check_fit(i, new, f"group {i}: ")
        lasting = {*order, *new, *self.defaults, "params", NAMES}
        after = {key: says[key] for key in dict.fromkeys([*order, *says]) if key in says and key in lasting}
        calls: list[Call] = [self._telling(plan, i, after, new), partial(group.update, new)]
        if list(after) != list(known):  # a key came, or was removed, or that and put back
            calls.append(known.clear)
        return [*calls, partial(known.update, after)]

    def tell(self, plan: Any) -> None:
        """Everything, to a new plan."""
        for i, known in enumerate(self.known):
            self._telling(plan, i, known, known)()

    def _telling(self, plan: Any, i: int, says: Mapping[str, Any], new: Mapping[str, Any]) -> Call:
        """What tells a plan that group i says this now, of which something is new."""
        settings, changed = ({key: x[key] for key in self.defaults if key in x} for x in (says, new))
        numbers = numbers_of(self.rules[i], changed, self.family.numbers(settings))
        return partial(plan.set, i, says, numbers, flags_of(settings))

    def first_of_another_state(self, i: int, settings: Mapping[str, Any]) -> str | None:
        """The first of new settings for group i by which it would need other states, or give them another meaning."""
        before = {**self.known[i], **self.schedules[i]}
        after = {**before, **settings, **self.schedules[i]}
        for key in self.family.fixed:
            if after[key] != before[key]:
                return key
        if self.family.variant(after) == self.rules[i].name:
            return None
        changed = (key for key in settings if self.family.variant({**before, key: after[key]}) != self.rules[i].name)
        return next(changed, "the combination")

    def _check_edit(self, i: int) -> dict[str, Any]:
        """What of group i is new, in its plain form."""
        group, known, where = self.live[i], self.known[i], f"group {i}: "
        for key in ("params", NAMES):
            if group.get(key) is not known.get(key):
                raise ValueError(f"{where}{key} cannot be replaced; make a new optimizer or use add_param_group")
        for key in self.defaults:
            if key not in group:
                raise ValueError(f"{where}expected the option {key!r}, which was removed from param_groups")
        new = {key: value for key, value in group.items() if key not in known or value is not known[key]}
        if self._is_plain_rate(new) and len(group) == len(known) and "lr" not in self.schedules[i]:
            return new
        further = {key: value for key, value in new.items() if key not in self.defaults}
        further_keys.check(further, self.family, self.defaults, where)
        settings = {
            key: checks.setting(key, value, self._kinds[key], where) for key, value in new.items() if key not in further
        }
        for key in self.schedules[i]:
            if key in settings and settings[key] != known[key]:
                raise ValueError(
                    f"{where}{key} follows a schedule and cannot be edited, got {new[key]!r}; to go on without it, "
                    "load the state_dict into a new optimizer"
                )
        other = self.first_of_another_state(i, settings)
        if other is not None:
            raise ValueError(
                f"{where}{other} decides which state exists or what it means and cannot change after construction; "
                f"got {group.get(other)!r}"
            )
        self.family.check({**known, **settings}, where)
        return {**further, **settings}

    @staticmethod
    def _is_plain_rate(new: Mapping[str, Any]) -> bool:
        """Whether a rate alone is new, as schedulers write it at each step, and in every range and type; it is in no
        combination that a family restricts."""
        return len(new) == 1 and type(rate := new.get("lr")) is float and 0 <= rate < 1

    # ---- schedules -------------------------------------------------------------------------------------------

    def find_scheduled(self) -> None:
        """What follows a schedule; called once the groups are complete."""
        self._followers = [
            (
                i,
                self.live[i],
                self.known[i],
                key,
                schedule if callable(schedule) else partial(value_at, schedule),
                names_of(key, self.family.numbers(self.live[i])),
                key in checks.HOLDS_BELOW_1 and key != "eps",  # of which some are too small
            )
            for i, schedules in enumerate(self.schedules)
            for key, schedule in schedules.items()
        ]
        self._restricted = any(key != "lr" for _, _, _, key, _, _, _ in self._followers)

    @property
    def is_scheduled(self) -> bool:
        """Whether a setting follows a schedule."""
        return bool(self._followers)

    def follow(self, plan: Any) -> None:
        """Writes the values of a plan's next update into the groups, and tells it.

        All are checked before the first is written. Raises TypeError or ValueError.
        """
        t = plan.updates
        values = []
        for index, group, known, key, schedule, _, is_plain in self._followers:
            if group.get(key) is not known[key]:
                self._check_edit(index)
            value = schedule(t)
            if not (is_plain and type(value) is float and 0 <= value < 1):
                value = self._check_scheduled(index, key, value, t)
            values.append(value)
        if self._restricted:
            self._check_combinations(values, t)
        for (index, group, known, key, _, names, _), value in zip(self._followers, values):  # noqa: B905
            known[key] = group[key] = value
            numbers = {names[0]: value} if len(names) == 1 else dict(zip(names, value, strict=True))
            plan.set(index, known, numbers, t=t)

    def _check_scheduled(self, index: int, key: str, value: Any, t: int) -> Any:
        try:
            value = checks.setting(key, value, self._kinds[key])
            if key == "eps" or not (type(value) is float and abs(value) < fit.HARMLESS):
                self._check_fit(index, {key: value}, "")
            return value
        except (TypeError, ValueError) as error:
            raise type(error)(f"group {index}, schedule at t={t}: {error}") from None

    def _check_combinations(self, values: Sequence[Any], t: int) -> None:
        merged = [dict(group) for group in self.live]
        for (index, _, _, key, _, _, _), value in zip(self._followers, values, strict=True):
            merged[index][key] = value
        for i, settings in enumerate(merged):
            self.family.check(settings, f"group {i}, schedule at t={t}: ")


# ---- for C -------------------------------------------------------------------------------------------------


def numbers_of(rule: Rule, settings: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, float]:
    """Settings of a group as numbers of the C API.

    ``renamed`` maps a setting to the number that it stands for where the names differ.
    """
    numbers: dict[str, float] = {}
    for key, value in settings.items():
        if not isinstance(value, (bool, str)):
            values = value if isinstance(value, tuple) else (value,)
            names = names_of(key, renamed)
            numbers.update((name, x) for name, x in zip(names, values, strict=False) if name in rule.defaults)
    return numbers


def flags_of(settings: Mapping[str, Any]) -> int:
    """Settings of a group as flags of the C API."""
    return sum(flag.bit for key, flag in FLAGS.items() if key in settings and settings[key] == flag.value)


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
    """Settings of a class, with the defaults of its constructor: a setting is of the kind of its default.

    A user's subclass may have a constructor of its own, which hands settings on: the bases know them, too.
    """
    kinds: dict[str, Any] = {}
    for base in family.__mro__:
        if "__init__" in vars(base) and base is not object:
            parameters = inspect.signature(base.__init__).parameters.values()
            kinds |= {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "grads"}
    return kinds


@cache
def settings_of_all() -> frozenset[str]:
    """Names that are settings of any of this package's optimizers."""
    found, families = set(), [Family]
    while families:
        family: Any = families.pop()
        families += family.__subclasses__()
        if family.__module__.partition(".")[0] == __name__.partition(".")[0]:
            found |= set(kinds_of(family))
    return frozenset(found)


def _is_scheduled(key: str, value: Any, default: Any) -> bool:
    if key not in checks.SCHEDULABLE or isinstance(default, (bool, str)):
        return False
    return callable(value) or (isinstance(value, (tuple, list)) and any(callable(part) for part in value))
