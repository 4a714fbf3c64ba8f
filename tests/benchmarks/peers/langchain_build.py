"""First build with LangChain's index() into LanceDB; run with the peers' own Python."""

from common import Clock, arguments, model_folder, rank, report


def main() -> None:
    args = arguments(__doc__)
    clock = Clock()
    folder = args.folder.resolve()
    with clock.phase("import"):
        import sentence_transformers  # noqa: F401 - HuggingFaceEmbeddings imports it only when it loads its model
        from langchain_core.indexing import index
        from langchain_huggingface import HuggingFaceEmbeddings
        from langchain_parts import PACKAGES, Splitter, load, open_store

    with clock.phase("model"):
        embedding = HuggingFaceEmbeddings(model_name=model_folder())
        splitter = Splitter.by_tokens()

    with clock.phase("load"):
        documents = load(folder)

    with clock.phase("split"):
        passages = splitter.split(documents)

    with clock.phase("embed_write"):
        store, records = open_store(args.output, embedding)
        index(passages, records, store, cleanup="full", source_id_key="source", key_encoder="sha256")

    def search(query: str, passages: int) -> list[str]:
        return [found.metadata["source"] for found in store.similarity_search(query, k=passages)]

    rankings = None
    if args.queries:
        with clock.phase("search"):
            rankings = rank(args.queries, args.k, search)
    report(
        packages=[*PACKAGES, "sentence-transformers", "torch"],
        clock=clock,
        documents=len(documents),
        passages=store.get_table().count_rows(),
        characters=sum(len(passage.page_content) for passage in passages),
        rankings=rankings,
    )


if __name__ == "__main__":
    main()
