"""A file of JSON lines that only grows, so that a crash loses nothing that was written before."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from tasks.errors import ConfigError

Item = TypeVar("Item")


class Journal(Generic[Item]):
    """Records of one dataclass. A last line that a killed process left half written is no record."""

    def __init__(self, path: Path, kind: type[Item]) -> None:
        self.path = path
        self._adapter: TypeAdapter[Item] = TypeAdapter(kind)

    def read(self) -> list[Item]:
        """In the order in which they were added. Raises ConfigError where a line was spoilt by hand."""
        if not self.path.exists():
            return []
        return [
            self._parse(line, number)
            for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True), start=1)
            if line.endswith(b"\n")
        ]

    def add(self, items: Iterable[Item]) -> None:
        """Return once they are on the disk."""
        lines = b"".join(self._adapter.dump_json(item) + b"\n" for item in items)
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def _parse(self, line: bytes, number: int) -> Item:
        try:
            return self._adapter.validate_json(line)
        except ValidationError as error:
            raise ConfigError(
                f"{self.path}, line {number}, is no record of Tandem's ({error.errors()[0]['msg']}): nobody is to edit "
                "this file; mend the line or take it out"
            ) from error
