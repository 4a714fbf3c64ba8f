"""Lists what the sources hold tonight."""

from dataclasses import replace
from typing import Any

from prefect import State, task

from tasks.config.index import ParsingConfig, SourceConfig
from tasks.config.settings import find_home
from tasks.documents.sources import list_source
from tasks.errors import TandemError, UnreachableError
from tasks.records import Listing, Problem
from tasks.telling import tell, warn


def collect_all(sources: tuple[SourceConfig, ...], parsing: ParsingConfig) -> tuple[list[Listing], dict[str, str]]:
    """Every source's listing, and for those that failed the reason."""
    listings: list[Listing] = []
    failures: dict[str, str] = {}
    for source in sources:
        state = collect(source, parsing.max_file_mb, return_state=True)
        result = state.result(raise_on_failure=False)
        if isinstance(result, TandemError):
            failures[source.name] = str(result)
            warn(f"{source.name} cannot be listed: {result}")
        elif isinstance(result, BaseException):
            raise result
        else:
            listings.append(result)
    return listings, failures


def _may_answer_later(task: Any, run: Any, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), UnreachableError)


@task(
    name="collect",
    task_run_name="collect {source.name}",
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=_may_answer_later,
)
def collect(source: SourceConfig, max_file_mb: float) -> Listing:
    """List one source; files larger than the limit become problems without being opened."""
    max_bytes = max_file_mb * 1e6
    listing = list_source(source, find_home(), max_bytes)
    tell(f"{source.name}: {len(listing.files):,} files, revision {listing.revision}")
    for note in listing.notes:
        warn(note)
    problems = tuple(
        Problem(file.document, f"{file.size:,} bytes, more than the {max_file_mb:g} MB allowed", file.revision)
        for file in listing.files
        if file.size > max_bytes
    )
    if not problems:
        return listing
    files = tuple(file for file in listing.files if file.size <= max_bytes)
    return replace(listing, files=files, problems=listing.problems + problems)
