"""Scores a version and the champion on the same golden queries."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from prefect import task

from tasks.config.index import ReindexConfig
from tasks.config.settings import find_home
from tasks.errors import TandemError
from tasks.evaluation.golden import GoldenQuery, document_of, load_golden
from tasks.evaluation.retrieval import Comparison, RetrievalScores, compare, score
from tasks.index.search import Filters, IndexReader
from tasks.records import IndexManifest
from tasks.registry.connection import connect
from tasks.registry.versions import load_manifest, resolve_champion
from tasks.serving import open_manifest

DEPTH = 50
"""Passages asked for, so that ten different documents are among them."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of the candidate, and of the champion on the same queries where there is one."""

    candidate: RetrievalScores | None = None
    champion: RetrievalScores | None = None
    champion_number: int | None = None
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()


@task(name="evaluate", task_run_name="evaluate {manifest.index}")
def evaluate(config: ReindexConfig, manifest: IndexManifest, documents: frozenset[str]) -> Evaluation:
    """Ask both versions every golden query; those that name only documents gone since are left out, and noted."""
    home = find_home()
    client = connect(home)
    live = resolve_champion(client, config.name)
    if not config.golden:
        return Evaluation(champion_number=live.number if live else None)
    queries = load_golden(config.golden)
    answerable, notes = _answerable(queries, documents)
    ours = _score(open_manifest(asdict(manifest)), answerable, config)
    if live is None:
        return Evaluation(ours, notes=notes)
    try:
        theirs = _score(open_manifest(load_manifest(client, config.name, live.number)), answerable, config)
    except TandemError as error:
        return Evaluation(ours, champion_number=live.number, notes=(*notes, f"champion not scored: {error}"))
    paired = compare(ours, theirs, config.gate.metric, config.gate.confidence) if ours and theirs else None
    return Evaluation(ours, theirs, live.number, paired, notes)


def _score(reader: IndexReader, queries: Sequence[GoldenQuery], config: ReindexConfig) -> RetrievalScores | None:
    if not queries:
        return None
    by_tenant: dict[str | None, list[int]] = {}
    for position, query in enumerate(queries):
        by_tenant.setdefault(query.tenant, []).append(position)
    ranked: list[list[tuple[str, str]]] = [[] for _ in queries]
    for tenant, positions in by_tenant.items():
        found = reader.search(
            [queries[position].query for position in positions], k=DEPTH, filters=Filters(tenant=tenant)
        )
        for position, passages in zip(positions, found, strict=True):
            ranked[position] = [(passage.document, passage.id) for passage in passages]
    return score(queries, ranked, config.gate.confidence)


def _answerable(queries: Sequence[GoldenQuery], documents: frozenset[str]) -> tuple[list[GoldenQuery], tuple[str, ...]]:
    kept = [query for query in queries if any(document_of(item) in documents for item in query.relevant)]
    if len(kept) == len(queries):
        return kept, ()
    return kept, (
        f"Golden queries left out, because they name only documents that are gone: {len(queries) - len(kept)}.",
    )
