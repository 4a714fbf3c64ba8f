"""What a night has to do: tonight's listings against what the table says it holds. Pure functions on records."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.config.index import ChunkingConfig, ParsingConfig, SourceConfig
from tasks.documents.chunking import CHUNKER_VERSION
from tasks.documents.metadata import METADATA_VERSION
from tasks.documents.parsing import PARSER_VERSION
from tasks.records import DocumentState, Listing, Problem, SourceFile

WHERE_NOT_WHAT = {"kind", "location", "ref", "root", "include", "exclude"}
"""Settings of a source that choose its files but leave no trace on a document."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Fingerprints of everything that makes rows out of a document's bytes."""

    good: str
    failed: str
    """Adds the limits, so that a larger time limit is worth another try at what failed."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The work of one night."""

    added: tuple[SourceFile, ...] = ()
    changed: tuple[SourceFile, ...] = ()
    """New bytes, or old bytes with a new recipe."""
    moved: tuple[tuple[str, SourceFile], ...] = ()
    """Old document id, and the file under its new name: same bytes."""
    deleted: tuple[str, ...] = ()
    unlisted: tuple[Problem, ...] = ()
    """Files a source lists but cannot hand over, new or different from last time."""
    unchanged: int = 0
    held: tuple[str, ...] = ()
    """Why nothing may be deleted and nothing may go live tonight, as sentences."""

    @property
    def to_prepare(self) -> list[SourceFile]:
        return [*self.added, *self.changed, *(file for _, file in self.moved)]

    @property
    def gone(self) -> list[str]:
        """Documents whose rows have to leave the table, moved ones included unless deletions are held."""
        return [] if self.held else [*self.deleted, *(old for old, _ in self.moved)]

    @property
    def nothing(self) -> bool:
        return not (self.to_prepare or self.gone or self.unlisted)


def recipe_of(source: SourceConfig, chunking: ChunkingConfig, parsing: ParsingConfig) -> Recipe:
    """Fingerprint a source's recipe: configuration and the version of the code of each step."""
    steps = {
        "parser": PARSER_VERSION,
        "chunker": CHUNKER_VERSION,
        "metadata": METADATA_VERSION,
        "chunking": chunking.model_dump(mode="json"),
        "source": source.model_dump(mode="json", exclude=WHERE_NOT_WHAT),
    }
    limits = parsing.model_dump(mode="json", exclude={"workers"})
    return Recipe(good=short_hash(steps), failed=short_hash({**steps, "limits": limits}))


def find_changes(
    listings: Sequence[Listing],
    failures: Mapping[str, str],
    states: Mapping[str, DocumentState],
    recipes: Mapping[str, Recipe],
    max_deleted_share: float,
    allow_deletions: bool = False,
) -> Changes:
    """Compare tonight's listings with the table.

    `failures` maps the name of a source that could not be listed to the reason: its documents stay.
    A source that is in the table but neither listed nor failed was taken out of the configuration: its documents
    are deleted like any others.
    """
    files = {file.document: file for listing in listings for file in listing.files}
    troubled = {problem.document: problem for listing in listings for problem in listing.problems}
    new = [file for document, file in files.items() if document not in states]
    missing = [d for d in states if d not in files and d not in troubled and source_of(d) not in failures]
    moved = _match_moves(new, missing, states)
    moved_from = {old for old, _ in moved}
    moved_to = {file.document for _, file in moved}
    deleted = tuple(document for document in missing if document not in moved_from)
    changed = [file for d, file in files.items() if d in states and _differs(file, states[d], recipes)]
    unlisted = [p for d, p in troubled.items() if d not in states or states[d].reason != p.reason]
    return Changes(
        added=tuple(file for file in new if file.document not in moved_to),
        changed=tuple(changed),
        moved=tuple(moved),
        deleted=deleted,
        unlisted=tuple(unlisted),
        unchanged=len(files) - len(new) - len(changed),
        held=tuple(_reasons_to_hold(listings, failures, states, deleted, max_deleted_share, allow_deletions)),
    )


def source_of(document: str) -> str:
    return document.split("/", 1)[0]


def corpus_hash(states: Iterable[DocumentState]) -> str:
    """Hash over every document and its revision, in a fixed order."""
    return short_hash(sorted((state.document, state.revision) for state in states))


def _differs(file: SourceFile, state: DocumentState, recipes: Mapping[str, Recipe]) -> bool:
    recipe = recipes[file.source]
    expected = recipe.failed if state.reason else recipe.good
    return file.revision != state.revision or state.recipe != expected


def _match_moves(
    new: Sequence[SourceFile], missing: Sequence[str], states: Mapping[str, DocumentState]
) -> list[tuple[str, SourceFile]]:
    """Pair files under a new name with vanished documents of the same bytes, each used once."""
    by_revision: dict[str, list[str]] = {}
    for document in sorted(missing, reverse=True):
        by_revision.setdefault(states[document].revision, []).append(document)
    return [(by_revision[f.revision].pop(), f) for f in new if by_revision.get(f.revision)]


def _reasons_to_hold(
    listings: Sequence[Listing],
    failures: Mapping[str, str],
    states: Mapping[str, DocumentState],
    deleted: Sequence[str],
    max_deleted_share: float,
    allow_deletions: bool,
) -> list[str]:
    if allow_deletions:
        return []
    before = Counter(source_of(document) for document in states)
    gone = Counter(source_of(document) for document in deleted)
    reasons = [
        f"source {name} failed: {reason.removeprefix(f'source {name}: ')}" for name, reason in sorted(failures.items())
    ]
    listed = {listing.source: len(listing.files) for listing in listings}
    for source, held_before in sorted(before.items()):
        if source in listed and listed[source] == 0:
            reasons.append(f"source {source} yields nothing, and {held_before} documents of it are indexed")
        elif gone[source] > max_deleted_share * held_before:
            reasons.append(
                f"{gone[source]} of {held_before} documents of source {source} are gone at once, "
                f"more than the allowed share of {max_deleted_share:.0%}"
            )
    return reasons


def short_hash(value: object) -> str:
    """A fingerprint of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
