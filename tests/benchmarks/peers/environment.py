"""Runs the peers in their own virtual environment, from the project's own process."""

import json
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.config.settings import find_home

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"


def peers_python() -> str:
    """The Python of the peers' environment, which is made under the home where it is missing or outdated."""
    folder = find_home().cache / "peers-venv"
    python = folder / "bin" / "python"
    installed = folder / "requirements.txt"
    if not installed.exists() or installed.read_bytes() != REQUIREMENTS.read_bytes():
        print(f"Installing the peers into {folder} (once, about 2.3 GB)", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
        installed.write_bytes(REQUIREMENTS.read_bytes())
    return str(python)


def build(command: list[str], folder: Path, output: Path, queries: Path | None = None) -> dict[str, Any]:
    """Run one build script in its own process; its JSON object, with the whole process's `wall_seconds`."""
    command = [*command, str(folder), str(output)] + (["--queries", str(queries)] if queries else [])
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with status {done.returncode}:\n{done.stderr[-3000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_seconds": seconds}


def llamaindex_build(folder: Path, output: Path, queries: Path | None = None) -> dict[str, Any]:
    return build([peers_python(), str(HERE / "llamaindex_build.py")], folder, output, queries)


def langchain_build(folder: Path, output: Path, queries: Path | None = None) -> dict[str, Any]:
    return build([peers_python(), str(HERE / "langchain_build.py")], folder, output, queries)


@contextmanager
def langchain_nights(folder: Path, output: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Index the folder once, then give a function that runs one warm night on what has changed since.

    The function takes the clean-up mode of LangChain's index(), `full` or `incremental`, and returns
    `seconds` (load, split, index, total) and what index() counted.
    """
    command = [peers_python(), str(HERE / "langchain_unchanged.py"), str(folder), str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as peer:
        requests, answers = peer.stdin, peer.stdout
        assert requests is not None
        assert answers is not None

        def answer() -> dict[str, Any]:
            line = answers.readline()
            if not line:
                sys.exit(f"{' '.join(command)} ended early; its error is above")
            return json.loads(line)

        def night(cleanup: str = "full") -> dict[str, Any]:
            requests.write(f"{cleanup}\n")
            return answer()

        answer()  # the first build
        yield night
