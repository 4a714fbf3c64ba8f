"""A night on which nothing changed, with LangChain's index(); run with the peers' own Python.

The first build uses a fake embedding, because its time does not matter. After that every line on standard
input (`full` or `incremental`, the clean-up mode of index()) runs one warm, unchanged night and prints one
JSON object; so a driver can alternate these nights with Tandem's. A first object is printed when the build
is done.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from common import Clock
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import index
from langchain_parts import Splitter, load, open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of markdown documents")
    parser.add_argument("output", type=Path, help="empty folder for the LanceDB database")
    args = parser.parse_args()
    folder = args.folder.resolve()
    by_tokens, by_characters = Splitter.by_tokens(), Splitter.by_characters()
    store, records = open_store(args.output, DeterministicFakeEmbedding(size=384))

    def night(cleanup: str) -> dict[str, object]:
        clock = Clock()
        documents: list[Document] = []

        class Passages(BaseLoader):
            """What index() is given: it asks for all passages to learn which of them changed."""

            def lazy_load(self) -> Iterator[Document]:
                with clock.phase("load"):
                    documents.extend(load(folder))
                with clock.phase("split"):
                    passages = by_tokens.split(documents)
                yield from passages

        with clock.phase("index"):
            counts = index(Passages(), records, store, cleanup=cleanup, source_id_key="source", key_encoder="sha256")
        with clock.phase("split by characters"):
            by_characters.split(documents)
        seconds = clock.seconds
        seconds["index without loading and splitting"] = seconds["index"] - seconds["load"] - seconds["split"]
        cheapest = seconds["index"] - seconds["split"] + seconds["split by characters"]
        seconds["index, splitting by characters"] = cheapest
        return {"cleanup": cleanup, "documents": len(documents), "seconds": seconds, **counts}

    print(json.dumps(night("full")), flush=True)
    for line in sys.stdin:
        print(json.dumps(night(line.strip())), flush=True)


if __name__ == "__main__":
    main()
