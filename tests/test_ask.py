"""`tandem ask`: one question, a conversation on a terminal, a question a line."""

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tasks.answering.assistant import Assistant
from tasks.config.settings import Home
from tasks.errors import ModelError
from tests.command import Tandem
from tests.homes import copy_home, use_home
from tests.released import NAME, NOT_THERE, QUESTION, refusal, two_releases

TANDEM = Path(sys.executable).with_name("tandem")
CTRL_D = "\x04"
FOLLOW_UP = "And why?"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with pytest.MonkeyPatch.context() as patch:
        yield use_home(copy_home(two_releases(), tmp_path_factory.mktemp("ask") / "home"), patch)


class Terminal:
    """What somebody sees and types who runs a command."""

    def __init__(self, process: subprocess.Popen[bytes], side: int) -> None:
        self.process = process
        self._side = side
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())

    def read_until(self, end: str, times: int = 1) -> str:
        """All that was seen, once it holds `end` so many times; at the end of the command, whatever it holds."""
        with suppress(OSError):  # as Linux says that nobody writes any more
            while self.seen.count(end) < times and (read := os.read(self._side, 4096)):
                self.seen += read.decode()
        return self.seen


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([TANDEM, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("end", [CTRL_D, "\n"])
def test_a_conversation_on_a_terminal_goes_on_from_what_was_said_and_ends_when_nothing_is(
    shared: Home, end: str
) -> None:
    with terminal("ask", NAME, "--tenant", "north") as talk:
        assert "desk@2 answers; an empty line or Ctrl-D ends" in talk.read_until("? ")
        talk.type(f"{FOLLOW_UP}\n")
        talk.read_until("? ", 2)
        talk.type(f"{QUESTION}\n")
        talk.read_until("? ", 3)
        talk.type(f"{FOLLOW_UP}\n")
        alone, first, second = talk.read_until("? ", 4).split("? ")[1:4]
        talk.type(end)
        assert talk.process.wait(60) == 0
    assert refusal(2) in alone  # nothing was said that it leans on
    for answer in (first, second):
        assert "eighty degrees for two minutes. [1]" in answer
        assert "[1] north/tea.md:" in answer


def test_a_question_that_fails_is_told_and_the_conversation_goes_on_without_it(
    shared: Home, tandem: Tandem, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[list[str]] = []
    answer = Assistant.answer

    def fail_first(self: Assistant, question: str, tenant: str | None = None, **more: Any) -> Any:
        heard.append([turn["content"] for turn in more["earlier"]])
        if len(heard) == 1:
            raise ModelError("the model does not answer")
        return answer(self, question, tenant, **more)

    typed = io.StringIO(f"{NOT_THERE}\n{QUESTION}\n{FOLLOW_UP}\n")
    typed.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", typed)
    monkeypatch.setattr(Assistant, "answer", fail_first)
    said = tandem("ask", NAME, "--tenant", "north", "--json")
    assert said.status == 0
    assert "tandem: the model does not answer\n" in said.err
    first, second = map(json.loads, said.out.splitlines())
    assert heard == [[], [], [QUESTION, first["text"]]]
    assert second["question"] == f"{QUESTION} {FOLLOW_UP}"


def test_each_line_of_piped_input_is_a_question_by_itself(shared: Home) -> None:
    asked = f"{QUESTION}\n\n{FOLLOW_UP}\n"
    command = [TANDEM, "ask", NAME, "--tenant", "north", "--json"]
    done = subprocess.run(command, input=asked, capture_output=True, text=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["question"], each["refused"]) for each in answers] == [(QUESTION, False), (FOLLOW_UP, True)]
    assert done.returncode == 1  # one was refused


@pytest.mark.parametrize(
    ("given", "sentence"),
    [(b"\n \n", "there is nothing to answer: give a question"), (b"caf\xe9\n", "standard input is no text in utf-8")],
)
def test_input_without_a_question_is_wrong_usage(
    shared: Home, tandem: Tandem, monkeypatch: pytest.MonkeyPatch, given: bytes, sentence: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
    said = tandem("ask", NAME)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(f"tandem: {sentence}")
