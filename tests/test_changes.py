"""What a night has to do, on listings and states small enough to check by hand."""

from collections.abc import Mapping

import pytest

from tasks.config.index import ChunkingConfig, ParsingConfig, SourceConfig
from tasks.documents.changes import Changes, Recipe, corpus_hash, find_changes, recipe_of
from tasks.records import DocumentState, Listing, Problem, SourceFile

RECIPES = {"a": Recipe("good", "failed"), "b": Recipe("good", "failed")}


def file(document: str, revision: str) -> SourceFile:
    source, _, path = document.partition("/")
    return SourceFile(document, source, path, revision, 10)


def listing(files: Mapping[str, str], source: str = "a", problems: Mapping[str, str] | None = None) -> Listing:
    """Revisions by document, and reasons by document."""
    troubles = tuple(Problem(document, reason) for document, reason in (problems or {}).items())
    return Listing(source, "r", tuple(file(*item) for item in files.items()), troubles)


def states(revisions: Mapping[str, str], **more: object) -> dict[str, DocumentState]:
    return {
        document: DocumentState(**{"document": document, "revision": revision, "recipe": "good", "passages": 1} | more)  # type: ignore[arg-type]
        for document, revision in revisions.items()
    }


def changes(*listings: Listing, held: Mapping[str, DocumentState], **more: object) -> Changes:
    return find_changes(
        listings,
        **{"failures": {}, "states": held, "recipes": RECIPES, "max_deleted_share": 0.5} | more,  # type: ignore[arg-type]
    )


def test_what_is_as_it_was_is_no_work() -> None:
    found = changes(listing({"a/1": "x", "a/2": "y"}), held=states({"a/1": "x", "a/2": "y"}))
    assert found == Changes(unchanged=2)
    assert found.nothing


def test_new_changed_moved_and_deleted_documents_are_told_apart() -> None:
    before = states({"a/same": "s", "a/edited": "e1", "a/old name": "m", "a/gone": "g"})
    found = changes(listing({"a/same": "s", "a/edited": "e2", "a/new name": "m", "a/new": "n"}), held=before)
    assert found == Changes(
        added=(file("a/new", "n"),),
        changed=(file("a/edited", "e2"),),
        moved=(("a/old name", file("a/new name", "m")),),
        deleted=("a/gone",),
        unchanged=1,
    )
    assert [f.document for f in found.to_prepare] == ["a/new", "a/edited", "a/new name"]
    assert found.gone == ["a/gone", "a/old name"]


def test_two_documents_that_swap_their_content_are_changed_and_not_moved() -> None:
    found = changes(listing({"a/1": "y", "a/2": "x"}), held=states({"a/1": "x", "a/2": "y"}))
    assert [f.document for f in found.changed] == ["a/1", "a/2"]
    assert (found.moved, found.deleted) == ((), ())


def test_of_two_equal_documents_that_vanish_one_moves_to_the_one_new_name() -> None:
    found = changes(listing({"a/3": "x"}), held=states({"a/1": "x", "a/2": "x"}), max_deleted_share=1)
    assert found.moved == (("a/1", file("a/3", "x")),)
    assert found.deleted == ("a/2",)


def test_a_copy_is_new_and_a_move_may_cross_sources() -> None:
    copied = changes(listing({"a/1": "x", "a/2": "x"}), held=states({"a/1": "x"}))
    assert [f.document for f in copied.added] == ["a/2"]
    crossed = changes(listing({"a/2": "y"}), listing({"b/1": "x"}, "b"), held=states({"a/1": "x", "a/2": "y"}))
    assert crossed.moved == (("a/1", file("b/1", "x")),)


def test_a_new_recipe_makes_every_document_of_its_source_work_and_no_other() -> None:
    before = states({"a/1": "x", "b/1": "y"})
    recipes = RECIPES | {"b": Recipe("better", "failed")}
    found = changes(listing({"a/1": "x"}), listing({"b/1": "y"}, "b"), held=before, recipes=recipes)
    assert [f.document for f in found.changed] == ["b/1"]


def test_a_file_that_failed_is_tried_again_only_with_other_bytes_or_other_limits() -> None:
    broken = states({"a/1": "x"}, recipe="failed", reason="took too long")
    assert changes(listing({"a/1": "x"}), held=broken).nothing
    assert len(changes(listing({"a/1": "x2"}), held=broken).changed) == 1
    longer = {"a": Recipe("good", "failed, longer limit")}
    assert len(changes(listing({"a/1": "x"}), held=broken, recipes=longer).changed) == 1


def test_a_file_that_cannot_be_handed_over_is_reported_once_and_keeps_its_passages() -> None:
    trouble = {"a/1": "not UTF-8", "a/2": "a link"}
    found = changes(listing({}, problems=trouble), held=states({"a/1": "x"}), max_deleted_share=0)
    assert [problem.document for problem in found.unlisted] == ["a/1", "a/2"]
    assert found.deleted == ()
    known = states({"a/1": "x"}, reason="not UTF-8")
    assert [p.document for p in changes(listing({}, problems=trouble), held=known).unlisted] == ["a/2"]


@pytest.mark.parametrize(("gone", "holds"), [(1, False), (2, False), (3, True), (4, True)])
def test_deletions_are_held_beyond_the_allowed_share_and_not_at_it(gone: int, holds: bool) -> None:
    before = {f"a/{number}": f"r{number}" for number in range(4)}
    left = dict(list(before.items())[gone:])
    found = changes(listing(left), held=states(before))
    assert bool(found.held) == holds
    assert len(found.deleted) == gone
    assert found.gone == ([] if holds else list(found.deleted))


def test_the_share_is_counted_for_each_source_on_its_own() -> None:
    before = states({f"a/{n}": f"r{n}" for n in range(100)} | {"b/1": "x", "b/2": "y", "b/3": "z"})
    everything = listing({f"a/{n}": f"r{n}" for n in range(100)})
    found = changes(everything, listing({"b/1": "x"}, "b"), held=before)
    assert found.held == ("2 of 3 documents of source b are gone at once, more than the allowed share of 50%",)


def test_moved_documents_do_not_count_as_gone_but_stay_while_deletions_are_held() -> None:
    before = states({f"a/{n}": f"r{n}" for n in range(4)})
    renamed = changes(listing({f"a/new{n}": f"r{n}" for n in range(4)}), held=before)
    assert len(renamed.moved) == 4
    assert renamed.held == ()
    partly = changes(listing({"a/new0": "r0"}), held=before)
    assert partly.held
    assert partly.gone == []


def test_a_source_that_yields_nothing_or_fails_holds_and_deletes_nothing() -> None:
    before = states({"a/1": "x", "b/1": "y"})
    empty = changes(listing({}), listing({"b/1": "y"}, "b"), held=before, max_deleted_share=1)
    assert empty.held == ("source a yields nothing, and 1 documents of it are indexed",)
    assert empty.gone == []
    failed = changes(listing({"a/1": "x"}), held=before, failures={"b": "no route to host"})
    assert failed.held == ("source b failed: no route to host",)
    assert failed.deleted == ()
    assert failed.nothing


def test_a_person_may_allow_the_deletions_once() -> None:
    before = states({"a/1": "x", "a/2": "y", "a/3": "z"})
    found = changes(listing({"a/1": "x"}), held=before, allow_deletions=True)
    assert found.held == ()
    assert found.gone == ["a/2", "a/3"]


def test_a_failed_source_keeps_its_documents_even_when_deletions_are_allowed() -> None:
    before = states({"a/1": "x", "b/1": "y"})
    found = changes(listing({"a/1": "x"}), held=before, failures={"b": "no route"}, allow_deletions=True)
    assert found.gone == []


def test_a_source_taken_out_of_the_configuration_goes_like_any_other_documents() -> None:
    before = states({"a/1": "x", "b/1": "y"})
    assert changes(listing({"a/1": "x"}), held=before).held
    assert changes(listing({"a/1": "x"}), held=before, allow_deletions=True).gone == ["b/1"]


def test_the_recipe_follows_what_leaves_a_trace_and_nothing_else() -> None:
    source = SourceConfig(name="a", location="site", tenant="north")

    def recipe(source: SourceConfig = source, **parsing: float) -> Recipe:
        return recipe_of(source, ChunkingConfig(), ParsingConfig.model_validate(parsing))

    moved = source.model_copy(update={"location": "elsewhere", "exclude": ("*.txt",)})
    assert recipe(moved) == recipe(workers=4) == recipe()
    assert recipe(source.model_copy(update={"tenant": "south"})).good != recipe().good
    assert recipe_of(source, ChunkingConfig(max_tokens=100), ParsingConfig()).good != recipe().good
    assert recipe(timeout_seconds=99).good == recipe().good
    assert recipe(timeout_seconds=99).failed != recipe().failed


@pytest.mark.parametrize("step", ["PARSER_VERSION", "CHUNKER_VERSION", "METADATA_VERSION"])
def test_the_code_s_own_version_of_each_step_decides(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def recipe() -> Recipe:
        return recipe_of(SourceConfig(name="a", location="site"), ChunkingConfig(), ParsingConfig())

    before = recipe()
    monkeypatch.setattr(f"tasks.documents.changes.{step}", "another")
    assert recipe().good != before.good
    assert recipe().failed != before.failed


def test_the_hash_of_the_corpus_knows_no_order() -> None:
    held = list(states({"a/1": "x", "a/2": "y"}).values())
    assert corpus_hash(held) == corpus_hash(held[::-1])
    assert corpus_hash(held) != corpus_hash(held[:1])
