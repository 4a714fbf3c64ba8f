"""A file or a source that fails costs itself, is tried again only where that can help, and is told apart."""

import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import git
import pytest

from tasks import collect
from tasks.config.index import ReindexConfig, SourceConfig
from tasks.config.settings import Home
from tasks.documents import folder
from tasks.documents.sources import list_source, open_reader
from tasks.errors import SourceError, UnreachableError
from tests.nights import page, quick_night, rows_of

LFS_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"


def test_a_remote_file_that_changed_after_it_was_listed_is_left_to_the_next_night(home: Home) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/changing/page.md", b"# Before\n")
    source = SourceConfig(name="docs", kind="url", location="memory://changing/")
    listing = list_source(source, home)
    memory.pipe("/changing/page.md", b"# After\n")
    with open_reader(source, home, listing) as reader, pytest.raises(SourceError, match="changed while the run"):
        reader.read(listing.files[0])


def test_a_file_that_vanishes_while_its_folder_is_listed_is_simply_not_there(
    home: Home, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page(site, "stays", "Here.")
    page(site, "vanishes", "Gone.")
    hashed = folder._hashed

    def too_late(entry: os.DirEntry[str]) -> list[int | str]:
        (site / "vanishes.md").unlink(missing_ok=True)
        return hashed(entry)

    monkeypatch.setattr(folder, "_hashed", too_late)
    listing = list_source(SourceConfig(name="docs", location=str(site)), home)
    assert [file.path for file in listing.files] == ["stays.md"]
    assert listing.problems == ()


def test_a_file_whose_disk_fails_is_set_aside_alone(home: Home, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page(site, "fine", "Here.")
    page(site, "broken", "There.")
    hashed = folder._hashed

    def damaged(entry: os.DirEntry[str]) -> list[int | str]:
        if entry.name == "broken.md":
            raise OSError(5, "Input/output error")
        return hashed(entry)

    monkeypatch.setattr(folder, "_hashed", damaged)
    listing = list_source(SourceConfig(name="docs", location=str(site)), home)
    assert [file.path for file in listing.files] == ["fine.md"]
    assert [problem.reason for problem in listing.problems] == ["cannot be read: Input/output error"]


def test_a_file_over_the_limit_is_not_opened(home: Home, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page(site, "small", "Here.")
    (site / "large.md").write_text("x" * 2_000)
    hashed, opened = folder._hashed, []

    def watched(entry: os.DirEntry[str]) -> list[int | str]:
        opened.append(entry.name)
        return hashed(entry)

    monkeypatch.setattr(folder, "_hashed", watched)
    listing = collect.collect.fn(SourceConfig(name="docs", location=str(site)), 0.001)
    assert opened == ["small.md"]
    assert [file.path for file in listing.files] == ["small.md"]
    assert [problem.reason for problem in listing.problems] == ["2,000 bytes, more than the 0.001 MB allowed"]


def test_a_pointer_to_git_lfs_is_set_aside_once_and_not_every_night(home: Home, site: Path) -> None:
    page(site, "tea", "Green tea is steeped at eighty degrees.")
    (site / "film.md").write_text(LFS_POINTER)
    with git.Repo.init(site) as repo:
        repo.git.add(".")
        repo.git.execute(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "pages"])
    source = SourceConfig(name="docs", kind="git", location=str(site))
    config = ReindexConfig(name="docs", sources=(source,))
    _, prepared = quick_night(config, home)
    assert [(problem.document, "Git LFS" in problem.reason) for problem in prepared.failed] == [("docs/film.md", True)]
    again, _ = quick_night(config, home)
    assert again.changes.nothing


def test_a_document_without_a_title_of_its_own_is_not_embedded_again_under_another_name(
    home: Home, site: Path, configure: Callable[..., ReindexConfig]
) -> None:
    (site / "notes.txt").write_text("The piano is tuned in spring.")
    quick_night(configure(), home)
    (site / "notes.txt").rename(site / "piano.txt")
    work, prepared = quick_night(configure(), home)
    assert [old for old, _ in work.changes.moved] == ["docs/notes.txt"]
    assert (prepared.embedded, prepared.reused) == (0, 1)
    assert rows_of(work.table, home)["title"].to_pylist() == ["piano"]


@pytest.mark.parametrize(("failure", "tries"), [(UnreachableError, 3), (SourceError, 1)])
def test_only_a_source_that_may_answer_later_is_asked_again(
    prefect: None, monkeypatch: pytest.MonkeyPatch, failure: type[SourceError], tries: int
) -> None:
    asked = []

    def failing(source: SourceConfig, home: Home, max_bytes: float) -> None:
        asked.append(source.name)
        raise failure("no answer")

    monkeypatch.setattr(collect, "list_source", failing)
    monkeypatch.setattr(collect, "collect", collect.collect.with_options(retry_delay_seconds=0))
    config = ReindexConfig(name="docs", sources=(SourceConfig(name="docs", location="nowhere"),))
    listings, failures = collect.collect_all(config.sources, config.parsing)
    assert (listings, failures) == ([], {"docs": "no answer"})
    assert len(asked) == tries


@pytest.mark.parametrize(
    ("kind", "location", "failure"),
    [
        ("git", "/nowhere/pages.git", SourceError),
        ("git", "https://127.0.0.1:9/pages.git", UnreachableError),
        ("url", "https://127.0.0.1:9/pages/", UnreachableError),
        ("url", "memory://nothing/there/", SourceError),
    ],
)
def test_what_is_not_there_is_told_from_what_does_not_answer(
    home: Home, kind: str, location: str, failure: type[SourceError]
) -> None:
    source = SourceConfig.model_validate({"name": "docs", "kind": kind, "location": location})
    with pytest.raises(SourceError) as raised:
        list_source(source, home)
    assert type(raised.value) is failure
