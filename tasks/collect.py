"""Lists what the sources hold tonight."""

from prefect import task

from tasks.config.index import ParsingConfig, SourceConfig
from tasks.config.settings import find_home
from tasks.documents.sources import list_source
from tasks.errors import SourceError, TandemError
from tasks.records import Listing, Problem


def collect_all(sources: tuple[SourceConfig, ...], parsing: ParsingConfig) -> tuple[list[Listing], dict[str, str]]:
    """Every source's listing, and for those that failed the reason.

    Raises:
        SourceError: no source could be listed.
    """
    listings: list[Listing] = []
    failures: dict[str, str] = {}
    for source in sources:
        # only what comes over a network can be better at the second try
        retries = 0 if source.kind == "folder" else 2
        state = collect.with_options(retries=retries)(source, parsing.max_file_mb, return_state=True)
        result = state.result(raise_on_failure=False)
        if isinstance(result, TandemError):
            failures[source.name] = str(result)
        elif isinstance(result, BaseException):
            raise result
        else:
            listings.append(result)
    if not listings:
        raise SourceError("\n".join(failures.values()))
    return listings, failures


@task(name="collect", task_run_name="collect {source.name}", retry_delay_seconds=[5, 30])
def collect(source: SourceConfig, max_file_mb: float) -> Listing:
    """List one source; files larger than the limit become problems without being opened."""
    listing = list_source(source, find_home())
    large = [file for file in listing.files if file.size > max_file_mb * 1e6]
    if not large:
        return listing
    problems = tuple(
        Problem(
            file.document,
            f"{file.size / 1e6:.0f} MB, more than the {max_file_mb:g} MB allowed",
            file.revision,
        )
        for file in large
    )
    files = tuple(file for file in listing.files if file.size <= max_file_mb * 1e6)
    return Listing(listing.source, listing.revision, files, listing.problems + problems)
