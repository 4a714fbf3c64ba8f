"""A git repository changes at its origin: what is meant is followed, and what cannot be known is asked for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from git import Repo

from tasks.config.index import SourceConfig
from tasks.config.settings import Home
from tasks.documents.sources import list_source
from tasks.errors import SourceError


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Repo]:
    repo = Repo.init(tmp_path / "origin", initial_branch="main")
    with repo.config_writer() as config:
        config.set_value("user", "name", "Tester")
        config.set_value("user", "email", "tester@example.com")
    _commit(repo, "old handbook")
    yield repo
    repo.close()


def _commit(repo: Repo, text: str) -> str:
    Path(repo.working_dir, "handbook.md").write_text(text)
    repo.git.add("--all")
    repo.git.commit("-m", text)
    return repo.head.commit.hexsha


def _source(repo: Repo, ref: str = "HEAD", mirrored: bool = True) -> SourceConfig:
    location = f"file://{repo.working_dir}" if mirrored else str(repo.working_dir)
    return SourceConfig(name="pages", kind="git", location=location, ref=ref)


def test_a_new_default_branch_is_followed_and_told(origin: Repo, home: Home) -> None:
    first = list_source(_source(origin), home)
    origin.git.checkout("-q", "-b", "next")
    second = _commit(origin, "new handbook")
    listing = list_source(_source(origin), home)
    assert listing.revision == second != first.revision
    [note] = listing.notes
    assert note == "source pages: the default branch is now next, and was main; set `ref` to stay on one branch"
    assert list_source(_source(origin), home).notes == ()
    origin.git.branch("-D", "main")
    assert list_source(_source(origin), home).revision == second


def test_an_origin_without_a_branch_checked_out_is_followed_at_its_commit(origin: Repo, home: Home) -> None:
    first = list_source(_source(origin), home).revision
    _commit(origin, "new handbook")
    origin.git.checkout("-q", "--detach", first)
    assert list_source(_source(origin), home).revision == first


def test_a_default_branch_that_is_gone_is_named_with_those_there_are(origin: Repo, home: Home) -> None:
    list_source(_source(origin), home)
    origin.git.branch("next")
    origin.git.symbolic_ref("HEAD", "refs/heads/next")
    origin.git.symbolic_ref("HEAD", "refs/heads/gone")
    origin.git.branch("-D", "main")
    with pytest.raises(SourceError, match="has no default branch; it has next; correct `ref`"):
        list_source(_source(origin), home)


@pytest.mark.parametrize("mirrored", [True, False], ids=["mirrored", "in place"])
def test_a_branch_and_a_tag_of_one_name_are_told_apart_by_the_reader_s_word(
    origin: Repo, home: Home, mirrored: bool
) -> None:
    tagged = origin.head.commit.hexsha
    origin.create_tag("v1")
    origin.git.checkout("-q", "-b", "v1")
    branched = _commit(origin, "new handbook")
    with pytest.raises(SourceError, match="a branch and a tag named v1; set `ref` to refs/heads/v1 or refs/tags/v1"):
        list_source(_source(origin, "v1", mirrored), home)
    assert list_source(_source(origin, "refs/heads/v1", mirrored), home).revision == branched
    assert list_source(_source(origin, "refs/tags/v1", mirrored), home).revision == tagged


@pytest.mark.parametrize("mirrored", [True, False], ids=["mirrored", "in place"])
def test_a_repository_of_another_user_is_told_as_that(
    origin: Repo, home: Home, mirrored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(SourceError, match=r"belongs to another user.*safe.directory .*origin"):
        list_source(_source(origin, mirrored=mirrored), home)
