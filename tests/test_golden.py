"""Golden files: reading, checking, drafting and writing them."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.errors import ConfigError
from tasks.evaluation.golden import (
    GoldenQuery,
    check_known,
    document_of,
    draft_golden,
    load_golden,
    write_golden,
)


@dataclass(frozen=True)
class Part:
    document: str
    text: str = ""
    heading: tuple[str, ...] = ()
    title: str | None = None
    tenant: str | None = None


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_a_line_needs_only_a_query_and_its_relevant_documents(tmp_path: Path) -> None:
    golden = load_golden(write(tmp_path / "g.jsonl", {"query": " how to log in ", "relevant": ["docs/login.md"]}, ""))
    assert [(q.query, q.relevant, q.tenant, q.origin, q.line) for q in golden] == [
        ("how to log in", ("docs/login.md",), None, "person", 1)
    ]


def test_an_id_that_was_not_given_does_not_change_when_lines_move(tmp_path: Path) -> None:
    one, two = {"query": "one", "relevant": ["a"]}, {"query": "two", "relevant": ["a"]}
    first = load_golden(write(tmp_path / "1.jsonl", one, two))
    second = load_golden(write(tmp_path / "2.jsonl", two, one))
    assert {q.query: q.id for q in first} == {q.query: q.id for q in second}
    assert len({q.id for q in first}) == 2


def test_every_bad_line_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    path = write(
        tmp_path / "g.jsonl",
        {"query": "fine", "relevant": ["a"]},
        "{not json",
        {"querry": "x", "relevant": ["a"]},
        "[1]",
        {"query": "", "relevant": []},
        {"query": "no answer"},
        {"query": "Fine", "relevant": ["b"]},
        {"query": "other", "relevant": ["b"], "line": 3},
    )
    with pytest.raises(ConfigError) as caught:
        load_golden(path)
    message = str(caught.value)
    assert str(path) in message
    assert "line 1:" not in message
    for expected in (
        "line 2: not JSON",
        "line 3: unknown key 'querry' (did you mean 'query'?)",
        "line 4: not a JSON object",
        "line 5: `query`: string should have at least 1 character; `relevant`",
        "line 6: `relevant`: field required",
        "line 7: the same query as line 1",
        "line 8: unknown key 'line'",
    ):
        assert expected in message


def test_no_more_than_ten_bad_lines_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="14 to mend") as caught:
        load_golden(write(tmp_path / "g.jsonl", *["{"] * 14))
    assert str(caught.value).count("line ") == 10
    assert "and 4 more" in str(caught.value)


def test_the_same_query_may_be_asked_by_two_tenants_but_an_id_stands_once(tmp_path: Path) -> None:
    north = {"query": "q", "relevant": ["a"], "tenant": "north"}
    assert len(load_golden(write(tmp_path / "g.jsonl", north, north | {"tenant": "south"}))) == 2
    with pytest.raises(ConfigError, match="line 2: the id 'x' stands on line 1 already"):
        load_golden(write(tmp_path / "h.jsonl", north | {"id": "x"}, {"query": "r", "relevant": ["a"], "id": "x"}))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n \n", "is empty"), (b'{"query": "\xff"}', "not UTF-8"), (None, "cannot be read")],
)
def test_an_empty_missing_or_undecodable_file_is_an_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "g.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_golden(path)


def test_an_unknown_document_is_named_with_its_line_and_a_near_match(tmp_path: Path) -> None:
    known = ["docs/login.md", "docs/guides/reset.md", "docs/odd#7"]
    golden = load_golden(
        write(
            tmp_path / "g.jsonl",
            {"query": "a", "relevant": ["docs/login.md", "docs/login.md#4", "docs/odd#7"]},
            {"query": "b", "relevant": ["docs/logn.md"]},
            {"query": "c", "relevant": ["docs/old/reset.md#2"]},
            {"query": "d", "relevant": ["zzz"]},
        )
    )
    with pytest.raises(ConfigError) as caught:
        check_known(golden, known, "g.jsonl")
    assert str(caught.value).splitlines()[1:] == [
        "  line 2: unknown document 'docs/logn.md' (did you mean 'docs/login.md'?)",
        "  line 3: unknown document 'docs/old/reset.md#2' (did you mean 'docs/guides/reset.md'?)",
        "  line 4: unknown document 'zzz'",
    ]
    check_known(golden[:1], known, "g.jsonl")


def test_only_a_number_after_the_last_hash_makes_a_passage_id() -> None:
    assert [document_of(id) for id in ("a/b.md#12", "a/b.md", "a/c#.md", "a#1#2")] == [
        "a/b.md",
        "a/b.md",
        "a/c#.md",
        "a#1",
    ]


PARTS = [
    Part("a.md", "# Start\n\nOverview of nothing much at all here.", ("Getting started",)),
    Part("a.md", "Turn the key twice.", ("Start", "Starting a cold engine")),
    Part(
        "b.md",
        "| a | b |\n\n- item\n\nThe [pump](x.md) must be **primed** by hand first. Then more.",
        ("Shared heading",),
    ),
    Part("c.md", "```\ncode goes here and is no prose at all\n```\n\nShort one.", ("Shared Heading",)),
    Part(
        "f.md",
        "a piece that begins within a sentence. _Shut the valve, e.g. the red one, before leaving._",
        (),
    ),
    Part("g.md", "{% alert %}\n\n_Shut the valve, e.g. the red one, before leaving._ Then go.", ("Triggers",)),
    Part("d.md", "Alike in two documents word for word.", ()),
    Part("e.md", "Alike in two documents word for word.", ()),
]


def test_drafts_come_from_telling_headings_and_first_sentences_that_have_one_answer() -> None:
    drafts = draft_golden(PARTS)
    assert {(q.query, q.relevant, q.slice) for q in drafts} == {
        ("Starting a cold engine", ("a.md",), "heading"),
        ("Overview of nothing much at all here.", ("a.md",), "first sentence"),
        ("The pump must be primed by hand first.", ("b.md",), "first sentence"),
        ("Shut the valve, e.g. the red one, before leaving.", ("g.md",), "first sentence"),
    }
    assert all(q.origin == "drafted" and "Drafted" in (q.note or "") for q in drafts)


def test_what_another_tenant_cannot_see_does_not_make_a_draft_ambiguous() -> None:
    parts = [Part(f"{t}.md", heading=("Rates for towing",), tenant=t) for t in ("north", "south")]
    assert {(q.tenant, q.relevant) for q in draft_golden(parts)} == {
        ("north", ("north.md",)),
        ("south", ("south.md",)),
    }
    assert draft_golden([Part(p.document, heading=p.heading) for p in parts]) == []


def test_drafting_gives_the_same_queries_for_the_same_passages_and_seed() -> None:
    parts = [Part(f"{n}.md", heading=(f"Heading number {n}",)) for n in range(50)]
    assert draft_golden(parts, count=10, seed=1) == draft_golden(reversed(parts), count=10, seed=1)
    assert draft_golden(parts, count=10, seed=1) != draft_golden(parts, count=10, seed=2)


def test_what_was_drafted_is_read_back_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    drafts = draft_golden(PARTS)
    write_golden(path, drafts)
    assert load_golden(path) == [
        GoldenQuery(**{key: getattr(q, key) for key in ("query", "relevant", "id", "slice", "origin", "note")}, line=n)
        for n, q in enumerate(drafts, start=1)
    ]
    with pytest.raises(ConfigError, match="exists already"):
        write_golden(path, [])
    assert len(load_golden(path)) == len(drafts)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_golden(tmp_path / "no" / "g.jsonl", drafts)
