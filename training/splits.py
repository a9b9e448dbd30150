"""Which pairs train, which validate, which test: 90/10 stratified by style, 100 for validation out of the test part.

Rinaldi et al. 2026, section 5.2. An item's part depends on its own name and its style's size only, not on the order
of the rows, so a data set that is made again from the same items is split the same way.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

TRAIN, VALIDATION, TEST = "train", "validation", "test"
UNKNOWN = "unknown"
"""The stratum of what has no style."""


def _shares(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """How many of each stratum, `wanted` in all: proportional, by largest remainders (ties by name)."""
    total = sum(sizes.values())
    exact = {name: wanted * size / total for name, size in sizes.items()}
    taken = {name: int(share) for name, share in exact.items()}
    rest = wanted - sum(taken.values())
    for name in sorted(exact, key=lambda each: (taken[each] - exact[each], each))[:rest]:
        taken[name] += 1
    return taken


def stratified_split(
    strata: Sequence[str | None],
    groups: Sequence[str],
    test_share: float = 0.1,
    validation: int = 100,
    seed: int = 0,
) -> list[str]:
    """The part of each row: `train`, `validation` or `test`.

    Rows of one group (the same picture, clips of the same song) always fall into the same part, so that nothing that
    was trained on is tested. Validation is drawn out of the test part, stratified as well, and leaves it: what
    chooses a checkpoint should not also measure it. Where the test part is small, half of it validates.

    Args:
        strata: a style for each row; None and "" count as one style of their own.
        groups: what each row belongs to; a group's stratum is that of its first row.
        test_share: of the groups, in (0, 1).
        validation: how many groups validate, at most.
        seed: another seed, another split.

    Raises ValueError where there are fewer than two groups or the share leaves a part empty.
    """
    if len(strata) != len(groups):
        raise ValueError(f"{len(strata)} strata do not fit {len(groups)} groups")
    stratum_of: dict[str, str] = {}
    for stratum, group in zip(strata, groups, strict=True):
        stratum_of.setdefault(group, stratum or UNKNOWN)
    count = len(stratum_of)
    tested = round(count * test_share)
    if not 0 < tested < count:
        raise ValueError(f"{count} items cannot be split with a test share of {test_share}: a part would be empty")
    members: dict[str, list[str]] = defaultdict(list)
    for group, stratum in stratum_of.items():
        members[stratum].append(group)
    for stratum in members:
        members[stratum].sort(key=lambda group: hashlib.sha256(f"{seed}\n{group}".encode()).digest())
    apart = _shares({stratum: len(each) for stratum, each in members.items()}, tested)
    chosen = {stratum: each[: apart[stratum]] for stratum, each in members.items() if apart[stratum]}
    validating = _shares({stratum: len(each) for stratum, each in chosen.items()}, min(validation, tested // 2))
    part_of = dict.fromkeys(stratum_of, TRAIN)
    for stratum, each in chosen.items():
        part_of |= dict.fromkeys(each, TEST) | dict.fromkeys(each[: validating[stratum]], VALIDATION)
    return [part_of[group] for group in groups]
