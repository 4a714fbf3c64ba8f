"""The documentation set of the demo holds together: golden queries, two nights, configuration."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from tasks.config.index import ReindexConfig
from tasks.evaluation.golden import check_known, load_golden

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "data" / "samples"


def files(folder: Path) -> set[str]:
    """Paths below the two sources, which are also the documents' ids."""
    return {
        path.relative_to(folder).as_posix()
        for tenant in ("north", "south")
        for path in (folder / tenant).rglob("*")
        if path.is_file()
    }


@pytest.fixture
def changes() -> dict[str, dict[str, object]]:
    return yaml.safe_load((SAMPLES / "night2" / "changes.yaml").read_text("utf-8"))


def second_night(changed: dict[str, object]) -> set[str]:
    moved = changed["moved"]
    deleted = changed["deleted"]
    assert isinstance(moved, dict)
    assert isinstance(deleted, list)
    return (files(SAMPLES / "night1") | files(SAMPLES / "night2") | set(moved.values())) - set(moved) - set(deleted)


def test_the_configuration_names_sources_that_are_there() -> None:
    config = ReindexConfig(**yaml.safe_load((ROOT / "conf" / "index" / "samples.yaml").read_text("utf-8")))
    assert [(source.name, source.tenant) for source in config.sources] == [
        ("north", "north"),
        ("south", "south"),
    ]
    assert all((ROOT / source.location).is_dir() for source in config.sources)
    assert config.golden
    assert (ROOT / config.golden).is_file()


def test_every_golden_query_has_its_answer_on_both_nights(changes: dict[str, dict[str, object]]) -> None:
    golden = load_golden(SAMPLES / "golden.jsonl")
    assert len(golden) >= 60
    for night in (files(SAMPLES / "night1"), second_night(changes["changed_night"])):
        check_known(golden, night, "golden.jsonl")


def test_a_tenants_queries_are_answered_by_its_own_documents() -> None:
    golden = load_golden(SAMPLES / "golden.jsonl")
    assert all(
        document.startswith(f"{query.tenant}/") for query in golden if query.tenant for document in query.relevant
    )
    assert min(Counter(query.tenant for query in golden).values()) >= 5
    assert set(Counter(query.slice for query in golden)) == {"lookup", "howto", "troubleshooting"}


def test_the_second_night_edits_adds_moves_and_deletes_what_it_says(
    changes: dict[str, dict[str, object]],
) -> None:
    first, overlay, changed = files(SAMPLES / "night1"), files(SAMPLES / "night2"), changes["changed_night"]
    assert sorted(overlay & first) == changed["edited"]
    assert sorted(overlay - first) == changed["added"]
    assert len(first - second_night(changed)) == 2
    for document in overlay & first:
        assert (SAMPLES / "night1" / document).read_bytes() != (SAMPLES / "night2" / document).read_bytes()


def test_the_damaged_night_reaches_most_documents(changes: dict[str, dict[str, object]]) -> None:
    pattern = changes["damaged_night"]["replace"]
    assert isinstance(pattern, str)
    damaged = list((SAMPLES / "night1").glob(pattern))
    assert len(damaged) > 0.7 * len(files(SAMPLES / "night1"))


def test_both_tenants_have_pages_of_the_same_name_that_say_different_things() -> None:
    night = files(SAMPLES / "night1")
    shared = [name.removeprefix("north/") for name in night if name.replace("north/", "south/", 1) in night]
    shared = [name for name in shared if not name.startswith("south/")]
    assert len(shared) >= 5
    for name in shared:
        north, south = ((SAMPLES / "night1" / tenant / name).read_text("utf-8") for tenant in ("north", "south"))
        assert north != south
