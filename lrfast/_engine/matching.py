"""Which parameter of a state_dict is which of an optimizer: by names where both have them, by order otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .further_keys import NAMES, names


class Match(NamedTuple):
    """Saved groups and, flat over all parameters, their keys in ``state`` and their places in the saved order, all in
    the order of the optimizer."""

    groups: list[Mapping[str, Any]]
    keys: list[Any]
    places: list[int]


def match(saved: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> Match:
    """Raises ValueError where groups or their parameters are not the same."""
    if len(saved) != len(own):
        raise ValueError(f"state_dict: expected {len(own)} param_groups, got {len(saved)}")
    named = [
        set(names(group[NAMES], len(group["params"]), f"state_dict: param_groups[{j}]: ")) if NAMES in group else None
        for j, group in enumerate(saved)
    ]
    all_named = [names_of_it for names_of_it in named if names_of_it is not None]
    by_names = len(all_named) == len(saved) and all(NAMES in group for group in own)
    order = _by_names(all_named, own) if by_names else range(len(own))
    first, groups, places = _firsts(saved), [], []
    for i, j in enumerate(order):
        theirs, mine = saved[j], own[i]
        if len(theirs["params"]) != len(mine["params"]):
            expected, got = len(mine["params"]), len(theirs["params"])
            raise ValueError(f"state_dict: param_groups[{j}]: expected {expected} parameters, got {got}")
        groups.append(theirs)
        given = named[j]
        if NAMES in mine and given is not None:
            if given != set(mine[NAMES]):
                raise _other_names(i, set(mine[NAMES]), given)
            place = {name: first[j] + k for k, name in enumerate(theirs[NAMES])}
            places += [place[name] for name in mine[NAMES]]
        else:
            places += range(first[j], first[j] + len(theirs["params"]))
    flat = [key for group in saved for key in group["params"]]
    try:
        repeated = len(set(flat)) < len(flat)
    except TypeError:
        repeated = True
    if repeated:
        raise ValueError("state_dict: expected one number for each parameter in the 'params' of its groups")
    return Match(groups, [flat[place] for place in places], places)


def _firsts(groups: Sequence[Mapping[str, Any]]) -> list[int]:
    """The place of each group's first parameter."""
    first, firsts = 0, []
    for group in groups:
        firsts.append(first)
        first += len(group["params"])
    return firsts


def _by_names(theirs: Sequence[set[Any]], own: Sequence[Mapping[str, Any]]) -> list[int]:
    """For each group of the optimizer the saved one whose parameters have the same names: its own if it can be."""
    mine = [set(group[NAMES]) for group in own]
    order: list[int | None] = [i if theirs[i] == mine[i] else None for i in range(len(own))]
    for i, found in enumerate(order):
        if found is None:
            order[i] = next((j for j, set_ in enumerate(theirs) if set_ == mine[i] and j not in order), None)
    if None in order:
        i = order.index(None)
        elsewhere = set.union(*mine) == set.union(*theirs)
        raise _other_names(i, mine[i], theirs[i], "; they are in another group" if elsewhere else "")
    return order  # type: ignore[return-value]


def _other_names(i: int, mine: set[Any], theirs: set[Any], hint: str = "") -> ValueError:
    return ValueError(
        f"state_dict: param_groups[{i}]: {NAMES}: expected those of this optimizer; "
        f"missing: {_listed(mine - theirs)}; unknown: {_listed(theirs - mine)}{hint}"
    )


def _listed(found: Iterable[Any]) -> str:
    """Names, the first of many."""
    words = sorted(map(repr, found))
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "") if words else "none"
