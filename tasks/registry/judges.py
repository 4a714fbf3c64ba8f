"""Language models that judge answers by MLflow's own judges, reached at any OpenAI-compatible endpoint.

MLflow's built-in judges take address and key from the environment of the whole process alone, try a dead endpoint for
three minutes a question, and do not tell which model answered. So their prompts and their reading of what comes back
are used, and their way to the model is replaced while a judge is asked.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Literal, cast

from mlflow.entities import Feedback
from mlflow.genai import judges
from mlflow.genai.judges.adapters.base_adapter import AdapterInvocationInput, AdapterInvocationOutput
from mlflow.genai.judges.utils import invocation_utils
from mlflow.genai.judges.utils.parsing_utils import _strip_markdown_code_blocks

from tasks.config.evaluation import JudgeConfig
from tasks.records import Generated, Judged, Judgement
from tasks.schemas import parse

Ask = Callable[[list[dict[str, str]]], Generated]
"""From the turns of a chat to what the model writes."""
MODEL = "tandem:/judge"
"""What MLflow takes for the address of a model, and is not used."""
PASSED = {"yes": True, "no": False}
RATINGS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
"""What models write, and what MLflow calls it; all else is unknown."""
SHOWN = 300
"""Characters of what went wrong."""
_ONE_JUDGE_AT_A_TIME = Lock()


@contextmanager
def judging(config: JudgeConfig, ask: Ask) -> Iterator[Callable[[Judged], Judgement]]:
    """A function, safe in several threads while the block lasts, that lets the judge look at one answer.

    What fails there, or is no verdict, is told by the judgement.
    """

    def judge(case: Judged) -> Judgement:
        try:
            said = _ask_mlflow(config, case)
        except Exception as error:  # whatever an endpoint sends, and a library makes of it, concerns one answer alone
            return Judgement(None, _cut(str(error)))
        told = said.metadata or {}
        tokens_in, tokens_out = int(told["tokens_in"]), int(told["tokens_out"])
        return Judgement(PASSED.get(str(said.value)), said.rationale or "", told["model"], tokens_in, tokens_out)

    with _ONE_JUDGE_AT_A_TIME:
        found = invocation_utils.get_adapter
        invocation_utils.get_adapter = lambda **_: _Endpoint(ask)  # type: ignore[assignment]
        try:
            yield judge
        finally:
            invocation_utils.get_adapter = found


class _Endpoint:
    """In the place of MLflow's adapters: who answered, and for how many tokens, stands in the feedback's metadata."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def invoke(self, asked: AdapterInvocationInput) -> AdapterInvocationOutput:
        if isinstance(asked.prompt, str):
            turns = [{"role": "user", "content": asked.prompt}]
        else:
            turns = [{"role": turn.role, "content": str(turn.content)} for turn in asked.prompt]
        written = self._ask(turns)
        said = parse(" ".join(_strip_markdown_code_blocks(written.text).split()))  # models break lines within strings
        said = said if isinstance(said, dict) else {}
        rating = RATINGS.get(str(said.get("result")).strip().casefold(), "unknown")
        feedback = Feedback(
            asked.assessment_name,
            rating,
            rationale=_cut(f"no verdict: {written.text}") if rating == "unknown" else str(said.get("rationale", "")),
            metadata={key: str(getattr(written, key)) for key in ("model", "tokens_in", "tokens_out")},
        )
        return AdapterInvocationOutput(feedback)


def _ask_mlflow(config: JudgeConfig, case: Judged) -> Feedback:
    if config.scorer == "Correctness":
        return judges.is_correct(
            request=case.question, response=case.answer, expected_response=case.expected, model=MODEL
        )
    if config.scorer == "RelevanceToQuery":
        return judges.is_context_relevant(request=case.question, context=case.answer, model=MODEL)
    if config.scorer == "RetrievalGroundedness":
        passages = [{"content": text} for text in case.passages]
        return judges.is_grounded(request=case.question, response=case.answer, context=passages, model=MODEL)
    if config.scorer == "Guidelines":
        said = {"request": case.question, "response": case.answer}
        return judges.meets_guidelines(guidelines=config.instructions, context=said, model=MODEL)
    own = judges.make_judge(config.name, config.instructions, model=MODEL, feedback_value_type=Literal["yes", "no"])
    inputs = {"question": case.question, "passages": list(case.passages)}
    expectations = {"expected_response": case.expected}
    return cast(Feedback, own(inputs=inputs, outputs=case.answer, expectations=expectations))


def _cut(text: str) -> str:
    return " ".join(text.split())[:SHOWN]
