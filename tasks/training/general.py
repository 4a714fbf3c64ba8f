"""Texts and questions that are not about the task: they tell what a fine-tune forgot."""

import json
from pathlib import Path
from typing import Any

from tasks.config.training import ScoringConfig
from tasks.errors import ConfigError


def read_general_text(scoring: ScoringConfig) -> list[dict[str, Any]]:
    """Raises ConfigError, naming the setting or the line, where the file is not what it should be."""
    return _read_lines("general_text", Path(scoring.general_text), ("text",))


def read_general_choices(scoring: ScoringConfig) -> list[dict[str, Any]]:
    """Raises ConfigError, naming the setting or the line, where the file is not what it should be."""
    return _read_lines("general_choices", Path(scoring.general_choices), ("question", "choices", "answer"))


def _read_lines(setting: str, file: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): name another file as scoring.{setting}") from None
    items = []
    for number, line in enumerate(lines, start=1):
        try:
            item = json.loads(line)
        except ValueError:
            item = None
        if not isinstance(item, dict) or not set(keys) <= set(item):
            raise ConfigError(f"{file}:{number}: a line must be a JSON object with {', '.join(keys)}")
        items.append(item)
    return items
