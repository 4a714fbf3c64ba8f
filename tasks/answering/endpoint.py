"""Answers by a model behind an OpenAI-compatible address."""

import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from math import exp
from pathlib import Path

import httpx
from openai import BadRequestError, NotFoundError, OpenAI, OpenAIError, omit
from openai.types.chat import ChatCompletion

from tasks.answering.generators import Turn
from tasks.answering.structured import AnswerSchema
from tasks.config.answering import EndpointConfig
from tasks.errors import ModelError, SchemaError
from tasks.records import Generated, Passage

UNLOAD_SECONDS = 5.0


class EndpointGenerator:
    """Safe to use from several threads. An adapter is asked for by name and version, as in ``support-v3``."""

    def __init__(
        self, config: EndpointConfig, adapter: str = "", files: Path | None = None, *, confident: bool = False
    ) -> None:
        """With `files`, the adapter's folder, the endpoint loads it now, and unloads it when this generator is gone.

        If `confident`, it is asked how sure it is of what it writes, and must say so.

        Raises ModelError where it does not.
        """
        self._config = config
        self._model = adapter.replace("@", "-v") or config.model
        self._files = files
        self._confident = confident
        key = os.environ.get(config.api_key_env, "none")
        self._client = OpenAI(base_url=config.base_url, api_key=key, timeout=config.timeout_seconds)
        if files:
            self._load(files)
            weakref.finalize(self, _unload, self._client, self._model)

    def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        turns: Sequence[Turn],
        schema: AnswerSchema | None = None,
    ) -> Generated:
        """Raises ModelError where the endpoint does not answer, or says no; SchemaError where that is to a schema."""
        try:
            try:
                done = self._ask(turns, schema)
            except NotFoundError:
                if not self._files:
                    raise
                self._load(self._files)  # the endpoint was started anew, or another process unloaded it
                done = self._ask(turns, schema)
        except OpenAIError as error:
            if schema and isinstance(error, BadRequestError):
                raise SchemaError(
                    "the endpoint that writes the answers refuses the request with this schema: take a simpler one, "
                    "or a shorter question"
                ) from error
            raise ModelError(
                f"the model {self._model} at {self._config.base_url} does not answer: check the address, the name and "
                f"the key in {self._config.api_key_env} ({error})"
            ) from error
        used = done.usage
        return Generated(
            done.choices[0].message.content or "",
            used.prompt_tokens if used else 0,
            used.completion_tokens if used else 0,
            self._confidence(done) if self._confident else None,
            done.choices[0].finish_reason == "length",
            done.model,
        )

    def _confidence(self, done: ChatCompletion) -> float:
        said = done.choices[0].logprobs
        if not said or not said.content:
            raise ModelError(
                f"the model {self._model} at {self._config.base_url} does not tell how likely its tokens are, which "
                "the policy's routing needs: leave routing.alone out, or use an endpoint that gives logprobs"
            )
        return exp(sum(token.logprob for token in said.content) / len(said.content))

    def _ask(self, turns: Sequence[Turn], schema: AnswerSchema | None) -> ChatCompletion:
        return self._client.chat.completions.create(
            model=self._model,
            messages=list(turns),  # type: ignore[arg-type]
            max_tokens=self._config.max_new_tokens,
            temperature=0,
            logprobs=True if self._confident else omit,
            response_format=schema.response_format if schema else omit,  # type: ignore[arg-type]
        )

    def _load(self, files: Path) -> None:
        """As vLLM has it: https://docs.vllm.ai/en/latest/features/lora/."""
        wanted = {"lora_name": self._model, "lora_path": str(files)}
        try:
            self._client.post("/load_lora_adapter", body=wanted, cast_to=httpx.Response)
        except BadRequestError as error:
            if "already" not in str(error):
                raise self._not_loaded(error) from error
        except OpenAIError as error:
            raise self._not_loaded(error) from error

    def _not_loaded(self, error: OpenAIError) -> ModelError:
        return ModelError(
            f"the endpoint {self._config.base_url} does not load the adapter {self._model} from {self._files}: it must "
            "be a vLLM started with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 that can read this folder "
            f"({error})"
        )


def _unload(client: OpenAI, name: str) -> None:
    with suppress(OpenAIError):  # whoever still needs it loads it again
        patient = client.with_options(timeout=UNLOAD_SECONDS, max_retries=0)
        patient.post("/unload_lora_adapter", body={"lora_name": name}, cast_to=httpx.Response)
