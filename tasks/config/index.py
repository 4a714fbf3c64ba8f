"""The configuration of the nightly re-index: one model, rendered as a form by the Prefect UI.

Imports nothing heavy. Relative paths are meant from the folder in which the run works.
"""

from typing import Literal

from pydantic import Field, model_validator

from tasks.config.fields import Address, Name, Share, Strict

Metric = Literal["recall@1", "recall@5", "recall@10", "mrr", "ndcg@10"]


class SourceConfig(Strict):
    """Where documents come from, and what is known of all of them."""

    name: Name
    """Short name; the first part of every document's id."""
    kind: Literal["folder", "git", "url"] = "folder"
    """A folder on this machine, a git repository (path, bundle or URL), or any fsspec URL."""
    location: Address
    """The folder, the repository, or the URL."""
    ref: str = "HEAD"
    """For git: the branch, tag or commit to index."""
    token_env: str = ""
    """For git over HTTPS: the environment variable that holds an access token, if the repository asks for one."""
    root: str = ""
    """For git: only what lies below this folder of the repository."""
    include: tuple[str, ...] = ("**/*",)
    """Globs, as in .gitignore, of the files to index."""
    exclude: tuple[str, ...] = ()
    """Globs of files to leave out, applied after `include`."""
    tenant: str | None = None
    """Who may see these documents; a search for a tenant never shows another's."""
    tenant_pattern: str | None = None
    """Regular expression on the path with a group `tenant`, where one source serves several tenants."""
    language: str | None = None
    """Language of the documents, as an ISO 639-1 code."""
    tags: tuple[str, ...] = ()
    """Tags put on every document of this source."""
    title_keys: tuple[str, ...] = ("title",)
    """Front matter keys tried for the title, before the first heading and the file name."""
    date_keys: tuple[str, ...] = ("date", "updated", "last_modified")
    """Front matter keys tried for the date."""
    date_pattern: str | None = None
    """Regular expression on the path with groups year, month and day, tried after the front matter."""

    @model_validator(mode="after")
    def _token_travels_safely(self) -> "SourceConfig":
        if self.token_env and not self.location.startswith(("https://", "http://127.0.0.1", "http://localhost")):
            raise ValueError(f"token_env is for a location that begins with https://, and this is {self.location}")
        return self


class ParsingConfig(Strict):
    """How much one file may cost before it is set aside."""

    timeout_seconds: float = Field(30, gt=0, le=3600)
    """Longest time a single file may take to convert."""
    memory_mb: int = Field(2048, ge=256)
    """Most memory the converting process may use."""
    max_file_mb: float = Field(50, gt=0)
    """Files larger than this are not opened."""
    workers: int = Field(2, ge=1, le=64)
    """Processes that convert files side by side."""


class ChunkingConfig(Strict):
    """How documents are cut into passages."""

    max_tokens: int = Field(200, ge=16, le=8192)
    """Most tokens a passage may have, counted by the embedder's own tokenizer."""
    overlap_tokens: int = Field(20, ge=0, le=1024)
    """Tokens that a passage repeats from the one before, where a section had to be cut."""
    heading_context: bool = True
    """Embed each passage together with its document's title and headings."""

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> "ChunkingConfig":
        if self.overlap_tokens >= self.max_tokens:
            raise ValueError(
                f"overlap_tokens ({self.overlap_tokens}) must be smaller than max_tokens ({self.max_tokens})"
            )
        return self


class EmbedderConfig(Strict):
    """What turns text into vectors."""

    kind: Literal["packaged", "sentence-transformers", "openai"] = "packaged"
    """The packaged all-MiniLM-L6-v2, any sentence-transformers model, or an OpenAI-compatible endpoint."""
    model: str = "all-MiniLM-L6-v2"
    """Model id or local folder; for an endpoint the model's name there."""
    revision: str | None = None
    """Revision on the hub, for models that come from one."""
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """Precision of the packaged model; auto takes the fastest that keeps the quality on this kind of machine."""
    batch_size: int = Field(32, ge=1, le=2048)
    """Texts embedded together; the packaged model forms its own batches."""
    query_prefix: str = ""
    """Put before every query, for models that were trained so."""
    passage_prefix: str = ""
    """Put before every passage, for models that were trained so."""
    base_url: Address | None = None
    """For an endpoint: its address, ending in /v1."""
    api_key_env: str = "OPENAI_API_KEY"
    """For an endpoint: the environment variable that holds its key."""
    dimensions: int | None = Field(None, ge=1)
    """For an endpoint: ask for vectors of this size."""
    requests_per_minute: int = Field(600, ge=1)
    """For an endpoint: rate limit."""
    max_retries: int = Field(5, ge=0, le=20)
    """For an endpoint: tries after a failure that may pass."""


class SearchConfig(Strict):
    """How a query is answered."""

    mode: Literal["vector", "text", "hybrid"] = "hybrid"
    """Vector search, full-text search, or both fused."""
    vector_weight: Share = 0.75
    """In hybrid search, the share of the vector score; the rest is the full-text score."""
    candidates: int = Field(150, ge=10, le=1000)
    """Passages each retriever hands to the fusion."""
    text_language: str = "English"
    """Stemming and stop words of the full-text index."""
    exact_below: int = Field(50_000, ge=0)
    """Below this many passages all vectors are held in memory and searched exactly; above, through a vector index."""
    reranker: str | None = None
    """Cross-encoder (sentence-transformers id or folder) that re-orders the best candidates."""
    rerank_depth: int = Field(30, ge=1, le=200)
    """Candidates the reranker reads."""


class GateConfig(Strict):
    """What a new version must show before it goes live."""

    metric: Metric = "ndcg@10"
    """The score that is compared with the champion's."""
    floors: dict[Metric, Share] = Field({})
    """Lowest acceptable value by metric, champion or not, such as recall@5: 0.8."""
    max_loss: Share = 0.02
    """Loss against the champion that is tolerated."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """How sure the gate must be that a loss greater than that is no chance before it rejects."""
    min_queries: int = Field(20, ge=1)
    """Fewer golden queries than this never pass."""
    max_quarantined: Share = 0.05
    """Largest share of files that may fail to convert."""


class ReindexConfig(Strict):
    """Re-index documents into LanceDB, score the result, and put it live if it is no worse."""

    name: Name
    """Name of the index, in LanceDB and in the MLflow registry."""
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    """Where the documents come from."""
    golden: str | None = None
    """Golden queries (jsonl) that score every version. Without them every version waits for a person."""
    promote: Literal["auto", "ask", "never"] = "auto"
    """Put a version that passes live at once, leave it as candidate for a person, or only register it."""
    max_deleted_share: Share = 0.2
    """If more than this share of a source's documents is gone at once, nothing is deleted and the version is held."""
    parsing: ParsingConfig = ParsingConfig()
    """Limits on converting one file."""
    chunking: ChunkingConfig = ChunkingConfig()
    """How documents are cut."""
    embedder: EmbedderConfig = EmbedderConfig()
    """What makes the vectors."""
    search: SearchConfig = SearchConfig()
    """How queries are answered."""
    gate: GateConfig = GateConfig()
    """What a new version must show."""
    lock_minutes: float = Field(30, ge=0)
    """How long a second run waits for the first before it is skipped."""

    @model_validator(mode="after")
    def _source_names_differ(self) -> "ReindexConfig":
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {', '.join(twice)}: give every source its own name")
        return self
