"""LangChain's loader, splitters, store and record manager, put together as its documentation does."""

from pathlib import Path
from typing import Any

from common import MAX_TOKENS, OVERLAP_TOKENS, model_folder
from langchain_classic.indexes import SQLRecordManager
from langchain_community.document_loaders import DirectoryLoader, TextLoader
from langchain_community.vectorstores import LanceDB
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_text_splitters import MarkdownHeaderTextSplitter, RecursiveCharacterTextSplitter
from transformers import AutoTokenizer

CHARACTERS_PER_TOKEN = 4
PACKAGES = ["langchain-core", "langchain-community", "langchain-text-splitters", "lancedb"]


def load(folder: Path) -> list[Document]:
    """All markdown documents; metadata `source` is the path below the folder."""
    loader = DirectoryLoader(str(folder), glob="**/*.md", loader_cls=TextLoader, loader_kwargs={"encoding": "utf-8"})
    documents = loader.load()
    for document in documents:
        document.metadata = {"source": Path(document.metadata["source"]).relative_to(folder).as_posix()}
    return documents


class Splitter:
    """At the headings first, then by a length: the embedder's own token count, or characters."""

    def __init__(self, lengths: RecursiveCharacterTextSplitter) -> None:
        levels = [("#" * level, f"h{level}") for level in range(1, 5)]
        self._headings = MarkdownHeaderTextSplitter(levels, strip_headers=False)
        self._lengths = lengths

    @classmethod
    def by_tokens(cls) -> "Splitter":
        tokenizer = AutoTokenizer.from_pretrained(model_folder())
        sizes = {"chunk_size": MAX_TOKENS, "chunk_overlap": OVERLAP_TOKENS}
        return cls(RecursiveCharacterTextSplitter.from_huggingface_tokenizer(tokenizer, **sizes))

    @classmethod
    def by_characters(cls) -> "Splitter":
        """Much faster, and passages only about as long as the embedder can read."""
        size, overlap = (CHARACTERS_PER_TOKEN * tokens for tokens in (MAX_TOKENS, OVERLAP_TOKENS))
        return cls(RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=overlap))

    def split(self, documents: list[Document]) -> list[Document]:
        sections = []
        for document in documents:
            for section in self._headings.split_text(document.page_content):
                # One key for all headings: the store fixes its metadata columns at the first write.
                heading = " / ".join(section.metadata.values())
                metadata = {**document.metadata, "heading": heading}
                sections.append(Document(page_content=section.page_content, metadata=metadata))
        return self._lengths.split_documents(sections)


def open_store(output: Path, embedding: Embeddings) -> tuple[LanceDB, Any]:
    """The vector store and the record manager of `index()`, both under the output folder."""
    output.mkdir(parents=True, exist_ok=True)
    records = SQLRecordManager("lancedb/passages", db_url=f"sqlite:///{output / 'records.db'}")
    records.create_schema()
    # The store's default mode would replace the table with every batch of `index()`.
    store = LanceDB(uri=str(output / "lancedb"), embedding=embedding, table_name="passages", mode="append")
    return store, records
