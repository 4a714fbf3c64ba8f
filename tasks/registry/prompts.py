"""What a prompt is in MLflow's store: a model's version with a mark, whose text stands in its tags."""

import json

from mlflow.entities.model_registry import ModelVersion
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY, PROMPT_TEXT_TAG_KEY

Turn = dict[str, str]

ONLY_PROMPTS = f"tag.`{IS_PROMPT_TAG_KEY}` = 'true'"
"""Without this condition MLflow's searches leave prompts out."""


def is_prompt(version: ModelVersion) -> bool:
    return version.tags.get(IS_PROMPT_TAG_KEY) == "true"


def turns_of(version: ModelVersion) -> list[Turn]:
    """The turns of a prompt, with their variables. One that was written as plain text is a system turn."""
    text = version.tags[PROMPT_TEXT_TAG_KEY]
    try:
        turns = json.loads(text)
    except ValueError:
        turns = None
    return turns if isinstance(turns, list) else [{"role": "system", "content": text}]
