"""Which rows are held out for scoring: the same ones for one seed, in whatever order the rows come."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date

from tasks.training.formats import Example

Sides = tuple[list[Example], list[Example]]
"""Rows to train on, and rows to score on."""


def split(examples: Sequence[Example], *, share: float, seed: int, cut_off: date | None = None) -> tuple[Sides, str]:
    """Hold rows out by date where they have one, else by group, else balanced by label; and how, as a sentence.

    By date, the rows of `cut_off` and later are held out or, without one, the newest, about `share` of all. By group,
    whole groups at random that come to at most `share` of the rows. Else every so many rows of an order that is at
    random within a label: each label's share is right to within one row (systematic sampling; Cochran, Sampling
    Techniques, 1977, chapter 8).
    """
    days = sorted(example.day for example in examples if example.day)
    if days:
        since = cut_off or _newest(days, share)
        sides = _parted(examples, lambda example: (example.day or date.min) >= since)
        return sides, f"Held out are the rows of {since} and later."
    if any(example.group for example in examples):
        groups = _some_groups(examples, share, seed)
        sides = _parted(examples, lambda example: example.group in groups)
        return sides, f"Held out are {len(groups):,} groups at random."
    ordered = sorted(examples, key=lambda example: (example.label or "", _rank(seed, example.digest)))
    held_out = {id(example) for n, example in enumerate(ordered) if int((n + 1) * share) > int(n * share)}
    balanced = "at random, balanced by label" if any(example.label for example in examples) else "at random"
    return _parted(examples, lambda example: id(example) in held_out), f"Rows are held out {balanced}."


def keep_groups_apart(train: Sequence[Example], held_out: Sequence[Example]) -> Sides:
    """Rows to train on whose group is not among those held out, and the others."""
    groups = {example.group for example in held_out if example.group}
    return _parted(train, lambda example: example.group in groups)


def _newest(days: Sequence[date], share: float) -> date:
    """The first of the sorted days such that at most `share` are as late; the last one, if it alone has more."""
    last_before = days[len(days) - 1 - int(len(days) * share)]
    return next((day for day in days if day > last_before), days[-1])


def _some_groups(examples: Sequence[Example], share: float, seed: int) -> set[str]:
    """The smallest, if every one has more than `share`; none, if there is only one."""
    sizes = Counter(example.group or "" for example in examples)
    ranked = sorted(sizes, key=lambda group: _rank(seed, group))
    chosen: set[str] = set()
    room = int(len(examples) * share)
    for group in ranked:
        if sizes[group] <= room:
            chosen.add(group)
            room -= sizes[group]
    return chosen or ({min(ranked, key=sizes.__getitem__)} if len(ranked) > 1 else set())


def _rank(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed} {text}".encode("utf-8", "surrogatepass")).hexdigest()


def _parted(examples: Sequence[Example], is_second: Callable[[Example], bool]) -> Sides:
    first: list[Example] = []
    second: list[Example] = []
    for example in examples:
        (second if is_second(example) else first).append(example)
    return first, second
