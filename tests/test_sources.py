"""Folders, git repositories and URLs: what is listed, what is not, and what an error says."""

import functools
import http.server
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from git import Repo

from tasks.config.index import SourceConfig
from tasks.config.settings import Home
from tasks.documents import folder
from tasks.documents.sources import list_source, open_reader
from tasks.errors import ParseError, SourceError
from tasks.records import Listing
from tests.realdata import SHARED

BUNDLE = SHARED / "handbook" / "history_md_only.bundle"


def source(location: Path | str, **settings: Any) -> SourceConfig:
    return SourceConfig(name="docs", location=str(location), **settings)


def paths(listing: Listing) -> list[str]:
    return [file.path for file in listing.files]


def read_all(config: SourceConfig, home: Home) -> dict[str, bytes]:
    listing = list_source(config, home)
    with open_reader(config, home, listing) as reader:
        return {file.path: reader.read(file) for file in listing.files}


def fill(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return fill(
        tmp_path / "site",
        {
            "a.md": "alpha",
            "deep/b.md": "beta",
            "deep/draft/c.md": "gamma",
            "note.txt": "delta",
            ".git/config": "x",
            ".cache/d.md": "x",
        },
    )


class TestFolder:
    def test_lists_what_the_globs_select_with_ids_sizes_and_hashes(self, site: Path, home: Home) -> None:
        listing = list_source(source(site, include=("*.md",), exclude=("draft/",)), home)
        assert paths(listing) == ["a.md", "deep/b.md"]
        first = listing.files[0]
        assert (first.document, first.source, first.size) == ("docs/a.md", "docs", 5)
        assert first.revision == "sha256:8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8"
        assert listing.problems == ()

    def test_leaves_hidden_files_out_unless_an_include_names_them(self, site: Path, home: Home) -> None:
        assert paths(list_source(source(site), home)) == ["a.md", "deep/b.md", "deep/draft/c.md", "note.txt"]
        assert paths(list_source(source(site, include=(".cache/*.md", ".git/**")), home)) == [".cache/d.md"]

    def test_the_listing_s_revision_changes_with_any_file(self, site: Path, home: Home) -> None:
        first = list_source(source(site), home)
        assert list_source(source(site), home) == first
        (site / "a.md").write_text("ALPHA")
        second = list_source(source(site), home)
        assert second.revision != first.revision
        assert second.files[1:] == first.files[1:]

    def test_an_unchanged_file_is_not_opened_again(
        self, site: Path, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder, "RACY_NS", -1)  # ctime cannot be set back by a test
        hashed = []
        real = folder._hashed
        monkeypatch.setattr(folder, "_hashed", lambda entry: hashed.append(entry.name) or real(entry))
        first = list_source(source(site), home)
        assert sorted(hashed) == ["a.md", "b.md", "c.md", "note.txt"]
        hashed.clear()
        assert list_source(source(site), home) == first
        assert hashed == []
        (site / "deep/b.md").write_text("BETA")
        list_source(source(site), home)
        assert hashed == ["b.md"]

    def test_a_change_in_the_same_instant_with_the_same_size_is_seen(self, site: Path, home: Home) -> None:
        first = list_source(source(site), home)
        status = (site / "a.md").stat()
        (site / "a.md").write_text("ahpla")
        os.utime(site / "a.md", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert list_source(source(site), home).files[0] != first.files[0]

    def test_a_damaged_memory_of_hashes_is_forgotten(self, site: Path, home: Home) -> None:
        first = list_source(source(site), home)
        (memory,) = (home.cache / "folders").iterdir()
        memory.write_text('{"a.md": [')
        assert list_source(source(site), home) == first

    def test_reading_gives_the_bytes_that_were_listed_or_says_that_they_changed(self, site: Path, home: Home) -> None:
        config = source(site, include=("*.md",))
        assert read_all(config, home) == {"a.md": b"alpha", "deep/b.md": b"beta", "deep/draft/c.md": b"gamma"}
        listing = list_source(config, home)
        (site / "a.md").write_text("other")
        (site / "deep/b.md").unlink()
        with open_reader(config, home, listing) as reader:
            with pytest.raises(SourceError, match="changed while"):
                reader.read(listing.files[0])
            with pytest.raises(SourceError, match="cannot be read: No such file"):
                reader.read(listing.files[1])
            assert reader.read(listing.files[2]) == b"gamma"

    def test_links_are_not_followed_and_those_that_lead_out_are_problems(
        self, site: Path, home: Home, tmp_path: Path
    ) -> None:
        secret = fill(tmp_path / "private", {"secret.md": "secret"})
        (site / "out.md").symlink_to(secret / "secret.md")
        (site / "outdir.md").symlink_to(secret)
        (site / "gone.md").symlink_to(site / "nowhere.md")
        (site / "inside.md").symlink_to(site / "a.md")
        listing = list_source(source(site, include=("*.md",)), home)
        assert paths(listing) == ["a.md", "deep/b.md", "deep/draft/c.md"]
        assert sorted(problem.document for problem in listing.problems) == [
            "docs/gone.md",
            "docs/out.md",
            "docs/outdir.md",
        ]
        assert all("symbolic link" in problem.reason for problem in listing.problems)

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
    def test_a_name_that_is_not_utf8_and_a_pipe_are_problems(self, site: Path, home: Home) -> None:
        with open(os.fsencode(site) + b"/caf\xe9.md", "w") as file:
            file.write("coffee")
        os.mkfifo(site / "pipe.md")
        listing = list_source(source(site, include=("*.md",)), home)
        reasons = {problem.document: problem.reason for problem in listing.problems}
        assert reasons == {
            r"docs/caf\xe9.md": "its name is not UTF-8: rename it",
            "docs/pipe.md": "not a regular file",
        }
        assert len(listing.files) == 3

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_one_may_not_read_is_a_problem_and_a_folder_ends_the_listing(self, site: Path, home: Home) -> None:
        (site / "a.md").chmod(0)
        assert [problem.document for problem in list_source(source(site), home).problems] == ["docs/a.md"]
        (site / "deep").chmod(0)
        with pytest.raises(SourceError, match="half way"):
            list_source(source(site), home)
        (site / "deep").chmod(0o755)

    def test_a_folder_that_fails_half_way_gives_no_listing(
        self, site: Path, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.scandir

        def gone(path: Any) -> Any:
            if str(path).endswith("draft"):
                raise OSError(5, "Input/output error")
            return real(path)

        monkeypatch.setattr(os, "scandir", gone)
        with pytest.raises(SourceError, match=r"half way through listing.*Input/output error"):
            list_source(source(site), home)

    def test_a_folder_that_does_not_exist_says_what_to_correct(self, tmp_path: Path, home: Home) -> None:
        with pytest.raises(SourceError, match=r"docs: .*nowhere does not exist; correct `location`"):
            list_source(source(tmp_path / "nowhere"), home)

    def test_two_thousand_unchanged_documents_are_listed_in_a_tenth_of_a_second(
        self, tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(tmp_path / "many", {f"{n % 40}/{n}.md": f"page {n}" for n in range(2000)})
        monkeypatch.setattr(folder, "RACY_NS", -1)
        config = source(tmp_path / "many")
        first = list_source(config, home)
        times = []
        for _ in range(5):
            start = time.process_time()
            assert list_source(config, home) == first
            times.append(time.process_time() - start)
        assert min(times) < 0.1


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repo]:
    root = fill(tmp_path / "repo", {"pages/a.md": "alpha", "pages/deep/b.md": "beta", "README.md": "read me"})
    (root / "pages/link.md").symlink_to("a.md")
    (root / "pages/out.md").symlink_to("../../../etc/passwd")
    repo = Repo.init(root, initial_branch="main")
    with repo.config_writer() as config:
        config.set_value("user", "name", "Tester")
        config.set_value("user", "email", "tester@example.com")
    repo.git.add("--all")
    repo.git.commit("-m", "first")
    yield repo
    repo.close()


def commit(repo: Repo, files: dict[str, str]) -> None:
    fill(Path(repo.working_dir), files)
    repo.git.add("--all")
    repo.git.commit("-m", "more")


class TestGit:
    def test_lists_a_commit_by_its_blobs_below_the_root(self, repo: Repo, home: Home) -> None:
        config = source(repo.working_dir, kind="git", root="pages", include=("*.md",))
        listing = list_source(config, home)
        assert listing.revision == repo.head.commit.hexsha
        assert [(f.document, f.size) for f in listing.files] == [("docs/a.md", 5), ("docs/deep/b.md", 4)]
        assert listing.files[0].revision == f"git:{repo.git.rev_parse('HEAD:pages/a.md')}"
        assert [(p.document, p.reason.split(":")[0]) for p in listing.problems] == [
            ("docs/out.md", "a symbolic link that leads out of the repository")
        ]
        assert read_all(config, home) == {"a.md": b"alpha", "deep/b.md": b"beta"}

    def test_what_is_not_committed_is_not_there(self, repo: Repo, home: Home) -> None:
        fill(Path(repo.working_dir), {"pages/a.md": "changed", "new.md": "new"})
        config = source(repo.working_dir, kind="git", root="pages", include=("a.md",))
        assert read_all(config, home) == {"a.md": b"alpha"}

    @pytest.mark.parametrize("kind", ["bundle", "url"])
    def test_a_bundle_or_url_is_mirrored_and_followed(self, repo: Repo, home: Home, kind: str) -> None:
        bundle = Path(repo.working_dir).parent / "repo.bundle"
        repo.git.bundle("create", bundle, "main")
        location = str(bundle) if kind == "bundle" else f"file://{repo.working_dir}"
        config = source(location, kind="git", ref="main", include=("README.md",))
        assert read_all(config, home) == {"README.md": b"read me"}
        commit(repo, {"README.md": "read me again"})
        repo.git.bundle("create", bundle, "main")
        assert read_all(config, home) == {"README.md": b"read me again"}
        assert len(list((home.cache / "git").glob("*.git"))) == 1

    def test_a_branch_a_tag_and_a_commit_name_their_own_state(self, repo: Repo, home: Home) -> None:
        first = repo.head.commit.hexsha
        repo.create_tag("v1")
        commit(repo, {"README.md": "second"})

        def read_me(ref: str) -> bytes:
            config = source(repo.working_dir, kind="git", ref=ref, include=("README.md",))
            return read_all(config, home)["README.md"]

        assert read_me("main") == read_me("HEAD") == b"second"
        assert read_me("v1") == read_me(first) == read_me(first[:8]) == b"read me"

    def test_a_commit_that_the_mirror_has_is_not_fetched_again(self, repo: Repo, home: Home, tmp_path: Path) -> None:
        config = source(f"file://{repo.working_dir}", kind="git", ref=repo.head.commit.hexsha)
        first = list_source(config, home)
        Path(repo.working_dir).rename(tmp_path / "moved")
        assert list_source(config, home) == first
        with pytest.raises(SourceError, match="cannot fetch"):
            list_source(source(config.location, kind="git", ref="main"), home)

    def test_a_half_made_mirror_of_a_killed_run_is_made_anew(self, repo: Repo, home: Home) -> None:
        config = source(f"file://{repo.working_dir}", kind="git", ref="main")
        first = list_source(config, home)
        (mirror,) = (home.cache / "git").glob("*.git")
        mirror.rename(mirror.with_suffix(".draft"))
        (mirror.with_suffix(".draft") / "HEAD").unlink()
        assert list_source(config, home) == first

    def test_a_file_in_lfs_is_refused_rather_than_indexed_as_a_pointer(self, repo: Repo, home: Home) -> None:
        commit(repo, {"big.md": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"})
        with pytest.raises(ParseError, match="Git LFS"):
            read_all(source(repo.working_dir, kind="git", include=("big.md",)), home)

    def test_a_submodule_is_a_problem(self, repo: Repo, home: Home) -> None:
        repo.git.update_index("--add", "--cacheinfo", f"160000,{repo.head.commit.hexsha},vendor")
        repo.git.commit("-m", "module")
        listing = list_source(source(repo.working_dir, kind="git", include=("vendor",)), home)
        assert [(p.document, p.reason) for p in listing.problems] == [
            ("docs/vendor", "a submodule: give it a source of its own")
        ]

    def test_an_unknown_ref_or_root_names_what_there_is(self, repo: Repo, home: Home) -> None:
        for ref in ("mian", "--all", "0" * 40):
            with pytest.raises(SourceError, match=r"no branch, tag or commit .*it has main; correct `ref`"):
                list_source(source(repo.working_dir, kind="git", ref=ref), home)
        with pytest.raises(SourceError, match="there is no folder 'pagse' at HEAD; correct `root`"):
            list_source(source(repo.working_dir, kind="git", root="pagse"), home)

    def test_what_cannot_be_reached_is_said_without_its_password(self, home: Home, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"cannot fetch https://localhost:1/x.git") as caught:
            list_source(source("https://user@localhost:1/x.git", kind="git"), home)
        assert "user@" not in str(caught.value)
        with pytest.raises(SourceError, match="not a git repository"):
            list_source(source(tmp_path, kind="git"), home)
        with pytest.raises(SourceError, match="git may not be asked"):
            list_source(source("ext::sh -c id", kind="git"), home)

    @pytest.mark.realdata
    @pytest.mark.skipif(not BUNDLE.is_file(), reason="the handbook lies beside the project only where it is shared")
    def test_the_handbook_s_history_is_listed_at_any_commit(self, home: Home) -> None:
        config = source(BUNDLE, kind="git", ref="main", root="pages", include=("*.md",))
        now = list_source(config, home)
        assert len(now.files) == 246
        assert now.problems == ()
        before = list_source(config.model_copy(update={"ref": f"{now.revision}~40"}), home)
        assert 0 < len(set(before.files) - set(now.files)) < 100
        with open_reader(config, home, now) as reader:
            assert sum(len(reader.read(file)) == file.size for file in now.files) == 246


@pytest.fixture
def web(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestUrl:
    @pytest.mark.parametrize("kind", ["file", "memory", "http"])
    def test_lists_and_reads_any_file_system(self, site: Path, home: Home, web: str, kind: str) -> None:
        memory = fsspec.filesystem("memory")
        memory.pipe({"/site/a.md": b"alpha", "/site/deep/b.md": b"beta", "/site/note.txt": b"x"})
        location = {"file": f"file://{site}", "memory": "memory://site", "http": f"{web}/"}[kind]
        config = source(location, kind="url", include=("*.md",), exclude=("draft/",))
        first = list_source(config, home)
        assert [(f.document, f.size) for f in first.files] == [("docs/a.md", 5), ("docs/deep/b.md", 4)]
        assert read_all(config, home) == {"a.md": b"alpha", "deep/b.md": b"beta"}
        assert list_source(config, home) == first
        memory.pipe("/site/a.md", b"ALPHA!")
        (site / "a.md").write_text("ALPHA!")
        second = list_source(config, home)
        assert second.files[0].revision != first.files[0].revision
        assert second.files[1] == first.files[1]
        assert second.revision != first.revision

    def test_a_single_file_is_a_source_too(self, site: Path, home: Home, web: str) -> None:
        for location in (f"file://{site}/deep/b.md", f"{web}/deep/b.md"):
            assert read_all(source(location, kind="url"), home) == {"b.md": b"beta"}

    def test_what_does_not_exist_or_answer_says_so(self, site: Path, home: Home, web: str) -> None:
        for location in (f"file://{site}/nowhere", "memory://nowhere", f"{web}/nowhere.md"):
            with pytest.raises(SourceError, match=r"does not exist .*correct `location`"):
                list_source(source(location, kind="url"), home)
        with pytest.raises(SourceError, match=r"cannot be listed: .*connect"):
            list_source(source("http://127.0.0.1:1/", kind="url"), home)

    def test_a_folder_that_fails_while_listing_gives_no_listing(
        self, site: Path, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fsspec.implementations.local import LocalFileSystem

        real = LocalFileSystem.ls

        def fails(self: LocalFileSystem, path: str, **options: Any) -> Any:
            if path.endswith("deep"):
                raise PermissionError(13, "Permission denied", path)
            return real(self, path, **options)

        monkeypatch.setattr(LocalFileSystem, "ls", fails)
        with pytest.raises(SourceError, match="cannot be listed: PermissionError"):
            list_source(source(f"file://{site}", kind="url"), home)

    def test_an_unknown_protocol_and_a_missing_package_are_named(self, home: Home) -> None:
        with pytest.raises(SourceError, match="Protocol not known: gopher"):
            list_source(source("gopher://old", kind="url"), home)
        with pytest.raises(SourceError, match=r"needs another package: .*adlfs"):
            list_source(source("abfs://container/docs", kind="url"), home)
