"""Rows that wait for a person: drafted, put into a file to be edited by hand, and decided on.

All that is drafted and all that is decided is kept in journals. The file shows what waits, and is written anew from
them at every run, after what somebody wrote into it was kept.
"""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import yaml

from tasks.config.settings import Home
from tasks.errors import ConfigError
from tasks.journal import Journal
from tasks.lock import model_lock
from tasks.records import Decision, Draft

SECONDS_TO_WAIT = 60
HEADER = """\
# Rows that wait: {waiting}. Write true or false behind `approved:`; change `answer` as you like, nothing else is
# read. Then run `tandem curate` again: it keeps what you decided, and shows what is left and what is new. To think
# again, put a row that is gone back in.
"""


@dataclass(frozen=True, slots=True)
class Written:
    """What a person wrote into the file."""

    decided: tuple[tuple[str, bool, str], ...]
    """Id, whether approved, and the answer."""
    edits: Mapping[str, str]
    """Answers of rows that are not decided on, by id."""


class Desk:
    """What was drafted under a name, what was decided, and what waits."""

    def __init__(self, name: str, home: Home) -> None:
        self.folder = home.data / "curation" / name
        self.file = self.folder / "review.yaml"
        self._name, self._home = name, home
        self._drafts = Journal(self.folder / "drafts.jsonl", Draft)
        self._decisions = Journal(self.folder / "decisions.jsonl", Decision)

    def drafts(self) -> list[Draft]:
        """All that was ever put before a person."""
        return self._drafts.read()

    def decisions(self) -> dict[str, Decision]:
        """The last word on each row that was decided on."""
        return {decision.id: decision for decision in self._decisions.read()}

    def waiting(self) -> list[Draft]:
        decided = self.decisions()
        return [draft for draft in self.drafts() if draft.id not in decided]

    def approved(self) -> list[tuple[Draft, str]]:
        """The rows that count, each with its answer."""
        decided = self.decisions()
        found = [(draft, decided[draft.id]) for draft in self.drafts() if draft.id in decided]
        return [(draft, decision.answer) for draft, decision in found if decision.approved]

    def counts(self) -> dict[str, dict[str, int]]:
        """By kind: rows that wait, approved and rejected."""
        decided = self.decisions()
        found: dict[str, Counter[str]] = {}
        for draft in self.drafts():
            decision = decided.get(draft.id)
            state = "waiting" if decision is None else "approved" if decision.approved else "rejected"
            found.setdefault(draft.kind, Counter(waiting=0, approved=0, rejected=0))[state] += 1
        return {kind: dict(of) for kind, of in found.items()}

    def add(self, drafts: Sequence[Draft]) -> None:
        self._drafts.add(drafts)

    def decide(self, decided: Sequence[tuple[str, bool, str]], by: str) -> int:
        """Keep decisions, each an id, whether it is approved, and the answer; returns how many are new."""
        with self._lock():
            return self._decide(decided, by)

    def read_file(self, by: str) -> int:
        """Keep what was decided in the file; returns how many decisions are new.

        Raises ConfigError where the file cannot be read; then it stays as it is, and nothing of it is kept.
        """
        with self._lock():
            return self._decide(self._read(self._bytes()).decided, by)

    def write_file(self, by: str) -> None:
        """Let the file show what waits. What was written into it meanwhile is kept first."""
        with self._lock():
            while True:
                before = self._bytes()
                written = self._read(before)
                self._decide(written.decided, by)
                text = _as_yaml(self.waiting(), written.edits)
                beside = self.file.with_suffix(".new")
                self.folder.mkdir(parents=True, exist_ok=True)
                beside.write_text(text, encoding="utf-8")
                if self._bytes() == before:
                    break
            os.replace(beside, self.file)

    def _decide(self, decided: Sequence[tuple[str, bool, str]], by: str) -> int:
        known, now = self.decisions(), time.time()
        kinds = {draft.id: draft.kind for draft in self.drafts()}
        new = [
            Decision(row, approved, answer, by, now)
            for row, approved, answer in decided
            if row not in known or (known[row].approved, known[row].answer) != (approved, answer)
        ]
        if empty := [one.id for one in new if one.approved and kinds[one.id] != "golden" and not one.answer.strip()]:
            raise ConfigError(f"row {empty[0]} is approved, and has no answer: write one, or reject the row")
        self._decisions.add(new)
        return len(new)

    def _bytes(self) -> bytes:
        return self.file.read_bytes() if self.file.exists() else b""

    def _read(self, content: bytes) -> Written:
        try:
            entries = yaml.safe_load(content.decode("utf-8")) or []
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise self._spoilt(" ".join(str(error).split())) from None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self._spoilt("it is not a list of rows, each beginning with `- id:`")
        drafts = {draft.id: draft for draft in self.drafts()}
        decided: dict[str, tuple[str, bool, str]] = {}
        edits = {}
        for entry in entries:
            draft = drafts.get(str(entry.get("id")))
            if draft is None:
                raise self._spoilt(f"there is no row {entry.get('id')}")
            approved, answer = entry.get("approved"), _answer(entry, draft)
            if approved is None:
                edits[draft.id] = answer
            elif not isinstance(approved, bool):
                raise self._spoilt(f"`approved` of row {draft.id} is {approved!r}, and must be true or false")
            elif draft.id in decided:
                raise self._spoilt(f"row {draft.id} stands there twice")
            else:
                decided[draft.id] = (draft.id, approved, answer)
        return Written(tuple(decided.values()), edits)

    def _spoilt(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self.file} cannot be read: {what}. Mend it, or move it away: it is then written anew with all that "
            "waits, and what was decided before is kept"
        )

    def _lock(self) -> AbstractContextManager[None]:
        return model_lock(self._home.locks, f"{self._name}.review", SECONDS_TO_WAIT)


def show_prompt(draft: Draft) -> str:
    """What the model reads beside the question, for a person."""
    return "\n\n".join(turn["content"] for turn in draft.prompt if turn["content"] != draft.question)


def _answer(entry: Mapping[str, Any], draft: Draft) -> str:
    answer = entry.get("answer", draft.answer)
    return draft.answer if answer is None else str(answer)


def _as_yaml(waiting: Sequence[Draft], edits: Mapping[str, str]) -> str:
    """`approved` comes last, so that of a file that was cut off no row is approved whose answer is cut off, too.

    What several rows read, such as the example and the pair of one correction, is shown with the first.
    """
    first: dict[str, str] = {}
    for draft in waiting:
        first.setdefault(show_prompt(draft), draft.id)
    rows = [
        {
            "id": draft.id,
            "kind": draft.kind,
            "from": ", ".join([draft.source, *draft.traces]),
            "tenant": draft.tenant,
            "read": _read_once(draft, first),
            "question": draft.question,
            "relevant": list(draft.relevant),
            "rejected": draft.rejected,
            "answer": edits.get(draft.id, draft.answer),
        }
        for draft in waiting
    ]
    shown = [{key: value for key, value in row.items() if value} | {"approved": None} for row in rows]
    return HEADER.format(waiting=len(shown)) + "\n".join(
        yaml.dump([row], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120) for row in shown
    )


def _read_once(draft: Draft, first: Mapping[str, str]) -> str:
    prompt = show_prompt(draft)
    return prompt if not prompt or first[prompt] == draft.id else f"the same as row {first[prompt]}"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are, and nothing for what is to be decided."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)
_Dumper.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", ""))
