"""First build with Tandem, as the peers' scripts do it and with the same JSON object as its last line (README.md).

    python -m tests.benchmarks.tandem_build FOLDER OUTPUT [--queries JSONL] [--k 10]

Parsing, cutting and embedding overlap, so they are one phase; bringing the indices up to date is part of the build.
"""

import json
import os
import resource
import sys

from tests.benchmarks.peers.common import Clock, arguments, rank

PACKAGES = ("tandem", "lancedb", "openvino")


def main() -> None:
    args = arguments(__doc__)
    clock = Clock()
    os.environ["TANDEM_HOME"] = str(args.output.resolve())
    with clock.phase("import"):
        from importlib.metadata import version
        from unittest.mock import patch

        from tasks.collect import collect
        from tasks.compare import compare
        from tasks.config.index import ReindexConfig
        from tasks.config.settings import find_home
        from tasks.index.embedding import load_embedder
        from tasks.index.search import IndexReader
        from tasks.index.store import IndexStore
        from tasks.maintain import maintain
        from tasks.prepare import prepare
        from tasks.write import write

    home = find_home()
    source = {"name": "docs", "location": str(args.folder.resolve()), "include": ["**/*.md"]}
    config = ReindexConfig.model_validate({"name": "docs", "sources": [source]})
    with clock.phase("model"):
        embedder = load_embedder(config.embedder, home)

    with clock.phase("list"):
        listing = collect.fn(config.sources[0], config.parsing.max_file_mb)
        work = compare(config, [listing], {}, False, {}, home)

    # The model is loaded already, as the peers' are before their clocks start.
    with clock.phase("parse_cut_embed"), patch("tasks.prepare.load_embedder", lambda *_: embedder):
        prepared = prepare.fn(config, [listing], work)

    with clock.phase("write"):
        write.fn(work, prepared)

    with clock.phase("indices"):
        maintained = maintain.fn(config, work.table)

    store = IndexStore.open(home.lancedb, work.table)
    reader = IndexReader(store, embedder, config.search)
    prefix = f"{config.sources[0].name}/"

    def search(query: str, passages: int) -> list[str]:
        return [found.document.removeprefix(prefix) for found in reader.search([query], passages)[0]]

    rankings = None
    if args.queries:
        with clock.phase("search"):
            rankings = rank(args.queries, args.k, search)
    texts = store.rows(["text"], where="ordinal >= 0")["text"]
    characters = sum(len(text.as_py()) for text in texts)
    total = sum(clock.seconds[phase] for phase in ("list", "parse_cut_embed", "write", "indices"))
    own, worker = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    result = {
        "versions": {package: version(package) for package in PACKAGES} | {"embedder": embedder.label},
        "documents": len(maintained.documents),
        "passages": maintained.health.passages,
        "characters": characters,
        "seconds": {**clock.seconds, "total": total},
        "passages_per_second": maintained.health.passages / total,
        "characters_per_second": characters / total,
        "peak_rss_mb": own + config.parsing.workers * worker,
        "rankings": rankings,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
