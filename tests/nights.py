"""What the tests of the re-index share: documents to edit, and a night without Prefect or MLflow around it."""

from pathlib import Path

import pyarrow as pa

from tasks.collect import collect
from tasks.compare import Work, compare
from tasks.config.index import ReindexConfig
from tasks.config.settings import Home
from tasks.index.store import IndexStore
from tasks.maintain import maintain
from tasks.prepare import prepare
from tasks.records import Prepared
from tasks.write import write

FACTS = {
    "tea": "Green tea is steeped at eighty degrees for two minutes.",
    "bridge": "The old bridge carries no lorry heavier than seven tonnes.",
    "library": "Books are lent for three weeks and may be renewed twice.",
    "ferry": "The ferry to the island leaves at nine on weekdays only.",
}


def write_facts(site: Path) -> None:
    """Four short pages, each about something else."""
    for name, fact in FACTS.items():
        page(site, name, fact)


def page(site: Path, name: str, text: str) -> Path:
    path = site / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# About the {Path(name).name}\n\n{text}\n", encoding="utf-8")
    return path


def golden_for_facts(folder: Path) -> str:
    """Golden queries over the four pages, enough for the gate."""
    questions = {
        "tea": ["how long does green tea steep", "how hot for green tea", "tea minutes", "steeping tea", "green tea"],
        "bridge": ["weight limit of the bridge", "heaviest lorry on the bridge", "old bridge", "tonnes", "lorry limit"],
        "library": ["how long are books lent", "renew a book", "lending time", "library books", "weeks for a book"],
        "ferry": ["when does the ferry leave", "ferry on Sunday", "boat to the island", "island ferry", "nine o'clock"],
    }
    lines = [
        f'{{"query": "{query}", "relevant": ["docs/{name}.md"]}}'
        for name, asked in questions.items()
        for query in asked
    ]
    path = folder / "golden.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def config_over_facts(folder: Path, **gate: object) -> ReindexConfig:
    """Of an index over the four pages, which are written below the folder, with golden queries over them."""
    site = folder / "site"
    site.mkdir()
    write_facts(site)
    return ReindexConfig.model_validate(
        {
            "name": "docs",
            "sources": [{"name": "docs", "location": str(site)}],
            "golden": golden_for_facts(folder),
            "gate": {"min_queries": 10} | gate,
            "lock_minutes": 0,
        }
    )


def quick_night(config: ReindexConfig, home: Home, allow_deletions: bool = False) -> tuple[Work, Prepared]:
    """List, compare, prepare, write and maintain: the table's part of a night, without scores and registry."""
    listings = [collect.fn(source, config.parsing.max_file_mb) for source in config.sources]
    work = compare(config, listings, {}, allow_deletions, {}, home)
    prepared = prepare.fn(config, listings, work)
    write.fn(work, prepared)
    maintain.fn(config, work.table)
    return work, prepared


def rows_of(table: str, home: Home) -> pa.Table:
    """Every row of the latest version, in a fixed order."""
    return IndexStore.open(home.lancedb, table).rows().sort_by("id")
