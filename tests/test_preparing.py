"""A hostile file costs itself and nothing else."""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.config.index import ChunkingConfig, ParsingConfig
from tasks.documents.preparing import AHEAD_PER_WORKER, PreparedDocument, PrepareJob, Preparer
from tasks.errors import EmbedderError
from tasks.index.embedding import packaged_folder
from tasks.records import ParsedDocument, Problem, SourceFile
from tests.hostile import misbehave
from tests.realdata import SHARED, needs_real_data
from tests.waiting import wait_for

FORMATS = SHARED / "formats"
REPOSITORY = Path(__file__).resolve().parents[1]


def job(name: str, data: bytes = b"") -> PrepareJob:
    return PrepareJob(SourceFile(f"docs/{name}", "docs", name, f"sha256:{name}", len(data)), data)


def preparer(**limits: float) -> Preparer:
    parsing = ParsingConfig.model_validate({"timeout_seconds": 20, **limits})
    return Preparer(parsing, ChunkingConfig(), packaged_folder() / "tokenizer.json", misbehave)


def zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(30_000_000))
    return packed.getvalue()


def test_good_files_come_through_whatever_their_neighbours_do() -> None:
    good = [job(f"good{number}.md", f"# Page {number}\n\nText.".encode()) for number in range(6)]
    hostile = [
        job("hang.md"),
        job("swell.md"),
        job("crash.md"),
        job("panic.md"),
        job("bug.md"),
        job("bomb.docx", zip_bomb()),
        job("cut.pdf", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R"),
        job("line.txt", b"a" * 200_000_000),
        job("noise.bin", bytes(range(256))),
    ]
    mixed = [*good[:2], *hostile[:3], *good[2:4], *hostile[3:], *good[4:]]
    with preparer(timeout_seconds=8, memory_mb=2048) as pool:
        results = list(pool.prepare(iter(mixed)))
    found = {result.document: result.reason for result in results if isinstance(result, Problem)}
    assert found == {
        "docs/hang.md": "took longer than 8 seconds to convert",
        "docs/swell.md": "needs more than 2048 MB to convert",
        "docs/crash.md": "its converter crashed (SIGSEGV), as it does when it needs more than 2048 MB",
        "docs/panic.md": "its converter failed: Panic: index out of bounds",
        "docs/bug.md": "its converter failed: KeyError: 'colour'",
        "docs/bomb.docx": "unpacks to 30 MB from 0.0 MB: it looks like a zip bomb and was not opened",
        "docs/cut.pdf": found["docs/cut.pdf"],
        "docs/line.txt": "has a line of 200,000,000 characters: data, not text to be searched",
        "docs/noise.bin": "files of the kind .bin are not read: convert it, or exclude it in the configuration",
    }
    assert found["docs/cut.pdf"].startswith("damaged or cut short")
    prepared = [result for result in results if isinstance(result, PreparedDocument)]
    assert [result.file.document for result in prepared] == [f"docs/good{number}.md" for number in range(6)]
    assert prepared[3].parsed.title == "Page 3"
    assert prepared[3].chunks[0].text == "# Page 3\n\nText."


def test_a_text_converted_before_is_only_cut_again() -> None:
    parsed = ParsedDocument("Known text.", "Known", {"date": "2024-01-02"})
    file = SourceFile("docs/crash.md", "docs", "crash.md", "sha256:1", 4)
    with preparer(workers=1) as pool:
        (result,) = pool.prepare([PrepareJob(file, parsed=parsed)])
    assert isinstance(result, PreparedDocument)
    assert result.parsed == parsed
    assert [chunk.text for chunk in result.chunks] == ["Known text."]


def test_no_process_starts_without_a_document() -> None:
    before = multiprocessing.active_children()
    with preparer() as pool:
        assert list(pool.prepare([])) == []
        assert multiprocessing.active_children() == before


def test_files_are_read_only_a_little_ahead_of_what_is_collected() -> None:
    drawn = 0

    def jobs() -> Iterator[PrepareJob]:
        nonlocal drawn
        for number in range(200):
            drawn += 1
            yield job(f"{number}.md", b"Text.")

    with preparer(workers=1) as pool:
        results = pool.prepare(jobs())
        next(results)
        assert drawn <= AHEAD_PER_WORKER + 1
        assert len(list(results)) == 199


def test_large_files_are_held_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.documents.preparing.AHEAD_BYTES", 128)
    drawn = []

    def jobs() -> Iterator[PrepareJob]:
        for number in range(4):
            drawn.append(number)
            yield job(f"{number}.bin", b"x" * 60)

    with preparer(workers=1) as pool:
        results = pool.prepare(jobs())
        next(results)
        assert len(drawn) == 3
        assert len(list(results)) == 3


def test_workers_killed_from_outside_are_replaced() -> None:
    with preparer() as pool:
        assert len(list(pool.prepare([job("a.md", b"Text."), job("b.md", b"Text.")]))) == 2
        killed = {worker.pid or 0 for worker in multiprocessing.active_children()}
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: killed.isdisjoint(worker.pid for worker in multiprocessing.active_children()))
        (result,) = pool.prepare([job("c.md", b"Text.")])
    assert isinstance(result, PreparedDocument)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the broken pool's own
def test_a_pool_that_breaks_down_is_replaced_and_its_files_tried_again() -> None:
    names = ["a.md", "b.md", "poison.md", *(f"{number}.md" for number in range(30))]
    with preparer() as pool:
        results = list(pool.prepare(job(name, b"Text.") for name in names))
    (problem,) = [result for result in results if isinstance(result, Problem)]
    assert problem.document == "docs/poison.md"
    assert problem.reason == "it broke the pool of converters, and again when it was tried alone"
    assert len(results) == len(names)


def test_workers_end_when_the_run_is_killed_even_those_that_hang(tmp_path: Path) -> None:
    program = f"""
        from pathlib import Path
        from tests.test_preparing import job, preparer
        if __name__ == "__main__":
            with preparer(workers=2) as pool:
                results = pool.prepare([job("a.md", b"Text."), *(job("hang.md") for _ in range(40))])
                next(results)
                Path({str(tmp_path / "ready")!r}).touch()
                next(results)
    """
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], env=environment) as run:
        try:
            wait_for(lambda: (tmp_path / "ready").exists())
            workers = psutil.Process(run.pid).children(recursive=True)
        finally:
            run.kill()
    assert len(workers) >= 2
    wait_for(lambda: not any(worker.is_running() for worker in workers))


def test_a_worker_does_not_import_the_program_that_started_it(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent("""
            import os
            print("imported", flush=True)
            from tests.test_preparing import job, preparer
            with preparer(workers=2) as pool:
                assert len(list(pool.prepare([job("a.md", b"Text."), job("b.md", b"Text.")]))) == 2
        """)
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "imported\n"


def test_a_model_without_tokenizer_is_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"missing\.json does not exist"):
        Preparer(ParsingConfig(), ChunkingConfig(), tmp_path / "missing.json")


@pytest.mark.realdata
@needs_real_data
def test_real_files_fit_into_the_smallest_memory_one_can_configure() -> None:
    names = ["test.pdf", "test.docx", "test_wikipedia.html", "test.xlsx", "test.epub"]
    with preparer(memory_mb=256, timeout_seconds=120) as pool:
        results = list(pool.prepare(job(name, (FORMATS / name).read_bytes()) for name in names))
    assert [result for result in results if not (isinstance(result, PreparedDocument) and result.chunks)] == []
