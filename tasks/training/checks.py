"""What a data set must show before it is trained on. Each check hands back the rows that stay and what it found."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Literal

from tasks.config.training import CheckConfig
from tasks.private import find_private
from tasks.records import Finding
from tasks.training.formats import Example, Turn
from tasks.training.near import NearIndex, sketch_all, words_of
from tasks.training.rows import BadRow

if TYPE_CHECKING:
    from tasks.training.near import Shingles

CountTokens = Callable[[list[list[Turn]]], list[int]]
"""Tokens of each conversation, as the chat template writes it."""
FindUnwritable = Callable[[list[Turn]], str]
"""Why the chat template cannot write a conversation, as what follows "the row"; empty, if it can."""
Checked = tuple[list[Example], list[Finding]]
Severity = Literal["stop", "dropped", "note"]

SEVERITY: Mapping[str, Severity] = {"stop": "stop", "drop": "dropped", "report": "note"}
"""By what the configuration says is to be done."""
LABELS_SHOWN = 10


def check_malformed(bad: Sequence[BadRow], rows: int, max_broken: float) -> list[Finding]:
    """A finding for each reason why rows were left out, and one more if they are too many."""
    places: dict[str, list[str]] = defaultdict(list)
    for row in bad:
        places[row.reason].append(row.place)
    findings = [
        Finding("dropped", f"{_rows(len(of))} left out: {'it' if len(of) == 1 else 'each'} {reason}.", tuple(of))
        for reason, of in places.items()
    ]
    share = len(bad) / max(1, rows)
    if share > max_broken:
        sentence = f"{len(bad):,} of {_rows(rows)} ({share:.2%}) malformed, where at most {max_broken:.2%} may be"
        findings.append(Finding("stop", f"{sentence}: mend them or raise max_broken."))
    return findings


def drop_duplicates(examples: Sequence[Example]) -> Checked:
    """Of rows with exactly the same turns, the oldest stays."""
    same: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        same[example.digest].append(example)
    kept = {id(min(rows, key=_age)) for rows in same.values()}
    again = [example.place for example in examples if id(example) not in kept]
    findings = [Finding("dropped", f"{_rows(len(again))} left out that stand elsewhere word for word.", tuple(again))]
    return [example for example in examples if id(example) in kept], findings if again else []


def check_private(examples: Sequence[Example], policy: Literal["stop", "drop", "report"]) -> Checked:
    """Rows in which secrets or personal data stand, whoever says them."""
    kinds = {id(example): _private(example) for example in examples}
    found: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        for kind in kinds[id(example)]:
            found[kind].append(example.place)
    findings = [
        Finding(SEVERITY[policy], f"{_rows(len(places))} with secrets or personal data ({kind}).", tuple(places))
        for kind, places in sorted(found.items())
    ]
    kept = [example for example in examples if policy != "drop" or not kinds[id(example)]]
    return kept, findings


def check_dates(train: Sequence[Example], held_out: Sequence[Example], cut_off: date | None) -> Checked:
    """Rows to train on that are as late as the cut-off are left out; rows to score on that are older are told."""
    if cut_off is None:
        return list(train), []
    late = [example for example in train if example.day and example.day >= cut_off]
    old = [example.place for example in held_out if example.day and example.day < cut_off]
    findings = []
    if late:
        places = tuple(example.place for example in late)
        findings.append(Finding("dropped", f"{_rows(len(late))} to train on left out, of {cut_off} or later.", places))
    if old:
        findings.append(Finding("note", f"{_rows(len(old))} to score on older than the cut-off {cut_off}.", tuple(old)))
    return [example for example in train if not example.day or example.day < cut_off], findings


def check_similar(train: Sequence[Example], held_out: Sequence[Example], checks: CheckConfig) -> Checked:
    """Rows to train on that ask what a row to score on asks or are nearly that row; then near duplicates of others."""
    examples = [*train, *held_out]
    sketches = dict(zip((example.digest for example in examples), sketch_all(examples), strict=True))
    leaks = _leaks(train, held_out, sketches, checks.near_duplicate)
    findings = []
    if leaks:
        findings.append(
            Finding(
                SEVERITY[checks.leaked],
                f"{_rows(len(leaks))} to train on ask the same as a row to score on, or are nearly that row.",
                tuple(f"{train[n].place} = {twin.place}" for n, twin in leaks.items()),
            )
        )
    near = _near_duplicates(train, sketches, checks.near_duplicate)
    if near:
        sentence = (
            f"{_rows(len(near))} to train on nearly the same as an earlier one (Jaccard ≥ {checks.near_duplicate})."
        )
        findings.append(Finding("note", sentence, tuple(near)))
    return [example for n, example in enumerate(train) if checks.leaked != "drop" or n not in leaks], findings


def check_lengths(
    name: str, examples: Sequence[Example], max_length: int, max_cut: float, count_tokens: CountTokens
) -> tuple[int, list[Finding]]:
    """Tokens of the rows as far as they are used, and which are cut. Of a pair, the longer answer counts."""
    per_row = [len(example.conversations) for example in examples]
    counted = iter(count_tokens([turns for example in examples for turns in example.conversations]))
    lengths = [[next(counted) for _ in range(conversations)] for conversations in per_row]
    long = [example.place for example, own in zip(examples, lengths, strict=True) if max(own) > max_length]
    everything = sum(map(sum, lengths))
    used = sum(min(length, max_length) for own in lengths for length in own)
    if not long:
        return used, []
    share, cut = len(long) / len(examples), everything - used
    sentence = (
        f"{len(long):,} of {_rows(len(examples))} {name} ({share:.1%}) are longer than {max_length:,} tokens; "
        f"{cut:,} of {everything:,} tokens ({cut / everything:.1%}) would be cut."
    )
    if share <= max_cut:
        return used, [Finding("note", sentence, tuple(long))]
    sentence += f" At most {max_cut:.1%} of the rows may be: raise max_length or max_cut."
    return used, [Finding("stop", sentence, tuple(long))]


def check_labels(train: Sequence[Example], held_out: Sequence[Example]) -> list[Finding]:
    """How even the labels are, and labels that are scored and were never trained on."""
    counts = Counter(example.label for example in train if example.label)
    if not counts:
        return []
    (most, many), (least, few) = counts.most_common(1)[0], min(counts.items(), key=lambda item: (item[1], item[0]))
    sentence = (
        f"{len(counts):,} labels to train on; the most frequent, {most}, has {many:,} rows, "
        f"the rarest, {least}, has {few:,}."
    )
    findings = [Finding("note", sentence)]
    unseen = sorted({example.label for example in held_out if example.label} - counts.keys())
    if unseen:
        shown = ", ".join(unseen[:LABELS_SHOWN]) + (", …" if len(unseen) > LABELS_SHOWN else "")
        places = tuple(example.place for example in held_out if example.label in unseen)
        findings.append(Finding("note", f"{len(unseen):,} labels are scored and never trained on: {shown}.", places))
    return findings


def check_enough(train: Sequence[Example], held_out: Sequence[Example], min_rows: int) -> list[Finding]:
    """Enough rows to train on, and at least one to score on."""
    findings = []
    if len(train) < min_rows:
        sentence = f"{_rows(len(train))} to train on, where at least {min_rows:,} must be: add rows or lower min_rows."
        findings.append(Finding("stop", sentence))
    if not held_out:
        findings.append(
            Finding("stop", "No row to score on is left: name sources under held_out or raise held_out_share.")
        )
    return findings


def _leaks(
    train: Sequence[Example], held_out: Sequence[Example], sketches: Mapping[str, "Shingles"], threshold: float
) -> dict[int, Example]:
    """By number of the row to train on: the row to score on that it gives away."""
    index = NearIndex(threshold)
    asked: dict[str, Example] = {}
    for example in held_out:
        index.add(sketches[example.digest])
        asked.setdefault(words_of(example.asked), example)
    leaks = {}
    for number, example in enumerate(train):
        if twin := asked.get(words_of(example.asked)):
            leaks[number] = twin
        elif (near := index.find(sketches[example.digest])) is not None:
            leaks[number] = held_out[near]
    return leaks


def _near_duplicates(train: Sequence[Example], sketches: Mapping[str, "Shingles"], threshold: float) -> list[str]:
    index = NearIndex(threshold)
    kept: list[Example] = []
    near = []
    for example in train:
        if (twin := index.find(sketches[example.digest])) is not None:
            near.append(f"{example.place} = {kept[twin].place}")
        else:
            index.add(sketches[example.digest])
            kept.append(example)
    return near


def _age(example: Example) -> tuple[date, str, str, str]:
    """Oldest first; then by what does not depend on the order of the rows."""
    return (example.day or date.min, example.group or "", example.label or "", example.place)


def _private(example: Example) -> list[str]:
    return find_private("\n".join(turn["content"] for part in example.parts.values() for turn in part))


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
