"""Answers by a model behind an OpenAI-compatible address."""

import os
from collections.abc import Sequence

from openai import OpenAI, OpenAIError

from tasks.answering.generators import Turn
from tasks.config.answering import GeneratorConfig
from tasks.errors import ModelError
from tasks.records import Generated, Passage


class EndpointGenerator:
    """Safe to use from several threads. An adapter is asked for by name and version, as in ``support-v3``."""

    def __init__(self, config: GeneratorConfig, adapter: str = "") -> None:
        self._config = config
        self._model = adapter.replace("@", "-v") or config.model
        key = os.environ.get(config.api_key_env, "none")
        self._client = OpenAI(base_url=config.base_url, api_key=key, timeout=config.timeout_seconds)

    def answer(self, question: str, passages: Sequence[Passage], turns: Sequence[Turn]) -> Generated:
        """Raises ModelError where the endpoint does not answer, or says no."""
        try:
            done = self._client.chat.completions.create(
                model=self._model,
                messages=list(turns),  # type: ignore[arg-type]
                max_tokens=self._config.max_new_tokens,
                temperature=0,
            )
        except OpenAIError as error:
            raise ModelError(
                f"the model {self._model} at {self._config.base_url} does not answer: check the address, the name and "
                f"the key in {self._config.api_key_env} ({error})"
            ) from error
        used = done.usage
        return Generated(
            done.choices[0].message.content or "",
            used.prompt_tokens if used else 0,
            used.completion_tokens if used else 0,
        )
