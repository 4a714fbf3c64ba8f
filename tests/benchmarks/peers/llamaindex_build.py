"""First build with LlamaIndex's IngestionPipeline into LanceDB; run with the peers' own Python."""

from pathlib import Path

from common import MAX_TOKENS, OVERLAP_TOKENS, Clock, arguments, model_folder, rank, report

EMBED_BATCH_SIZE = 32
"""The default of sentence-transformers; LlamaIndex's own, 10, took 1.3 to 1.8 times as long."""


def main() -> None:
    args = arguments(__doc__)
    clock = Clock()
    folder: Path = args.folder.resolve()
    with clock.phase("import"):
        from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
        from llama_index.core.ingestion import IngestionPipeline
        from llama_index.core.node_parser import MarkdownNodeParser, SentenceSplitter
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
        from llama_index.readers.file import FlatReader
        from llama_index.vector_stores.lancedb import LanceDBVectorStore
        from transformers import AutoTokenizer

    with clock.phase("model"):
        embedding = HuggingFaceEmbedding(model_name=model_folder(), embed_batch_size=EMBED_BATCH_SIZE)
        tokenizer = AutoTokenizer.from_pretrained(model_folder())

    with clock.phase("load"):
        reader = SimpleDirectoryReader(
            folder,
            recursive=True,
            required_exts=[".md"],
            # FlatReader leaves the headings to MarkdownNodeParser, which the default reader would take away.
            file_extractor={".md": FlatReader()},
            file_metadata=lambda path: {"file_name": Path(path).relative_to(folder).as_posix()},
        )
        documents = reader.load_data()
        for document in documents:
            # File names in the embedded text would cost LlamaIndex tokens and quality.
            document.excluded_embed_metadata_keys += ["filename", "extension"]

    with clock.phase("split"):
        splitter = SentenceSplitter(chunk_size=MAX_TOKENS, chunk_overlap=OVERLAP_TOKENS, tokenizer=tokenizer.tokenize)
        nodes = IngestionPipeline(transformations=[MarkdownNodeParser(), splitter]).run(documents=documents)

    with clock.phase("embed_write"):
        store = LanceDBVectorStore(uri=str(args.output))
        IngestionPipeline(transformations=[embedding], vector_store=store).run(nodes=nodes)

    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)

    def search(query: str, passages: int) -> list[str]:
        found = index.as_retriever(similarity_top_k=passages).retrieve(query)
        return [result.node.metadata["file_name"] for result in found]

    rankings = None
    if args.queries:
        with clock.phase("search"):
            rankings = rank(args.queries, args.k, search)
    report(
        packages=["llama-index-core", "llama-index-vector-stores-lancedb", "sentence-transformers", "torch"],
        clock=clock,
        documents=len(documents),
        passages=store.table.count_rows(),
        characters=sum(len(node.get_content()) for node in nodes),
        rankings=rankings,
    )


if __name__ == "__main__":
    main()
