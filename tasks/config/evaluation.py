"""The configuration of an evaluation: one file under conf/suites/answers/. Imports nothing heavy."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.config.answering import EndpointConfig
from tasks.config.fields import Name, Share, Strict

Release = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}@(champion|candidate|previous|[0-9]+)$")]


class JudgeConfig(Strict):
    """A language model that says of every answer whether it passes, asked as MLflow's scorers ask."""

    name: Name
    """Of its score, which is followed by a hash of scorer, instructions, model and MLflow: the judge's version, such as
    correct@1a2b3c4d."""
    scorer: Literal["Correctness", "Guidelines", "RelevanceToQuery", "RetrievalGroundedness", "Instructions"]
    """One of MLflow's, or `Instructions` of one's own. Correctness is judged where short answers are known."""
    instructions: str = ""
    """What Guidelines has to be kept, or the whole of Instructions, which must say when to answer yes. There
    `{{ inputs }}` stands for question and passages, `{{ outputs }}` for the answer, `{{ expectations }}` for the right
    one."""
    endpoint: EndpointConfig
    """Where the judge is asked."""
    concurrency: int = Field(4, ge=1, le=64)
    """Answers that it is asked about at the same time."""

    @model_validator(mode="after")
    def _instructions_fit(self) -> "JudgeConfig":
        if bool(self.instructions.strip()) != (self.scorer in ("Guidelines", "Instructions")):
            wanted = "leave its instructions out" if self.instructions else "write its instructions"
            raise ValueError(f"the scorer of judge {self.name} is {self.scorer}: {wanted}")
        variables = set(re.findall(r"{{\s*(.*?)\s*}}", self.instructions))
        if self.scorer == "Instructions" and not {"outputs"} <= variables <= {"inputs", "outputs", "expectations"}:
            raise ValueError(
                f"the instructions of judge {self.name} have {', '.join(sorted(variables)) or 'nothing'} in two "
                "braces: they need {{ outputs }}, and may have {{ inputs }} and {{ expectations }}"
            )
        return self

    @property
    def needs_expected(self) -> bool:
        """Whether it can only judge where the right answer is known."""
        return self.scorer == "Correctness" or (self.scorer == "Instructions" and "expectations" in self.instructions)


class AnswersConfig(Strict):
    """Ask one or several releases the same questions, and score retrieval, generation and the whole apart."""

    name: Name
    """Name of the suite, and of its experiment in MLflow."""
    description: str = ""
    """What it is for."""
    questions: str
    """Golden queries (jsonl); those with `answers` are also scored by what is said."""
    releases: tuple[Release, ...] = Field(min_length=1, max_length=10)
    """The release that is judged, such as helpdesk@candidate, and those beside it."""
    floors: dict[str, Share] = Field({})
    """Lowest acceptable value of the first release by score, such as right: 0.8; for the score of a judge its name."""
    max_loss: dict[str, Share] = Field({})
    """By score, the loss of the first release against each other one that is tolerated."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of intervals, and of what counts as a loss."""
    worst: int = Field(10, ge=0, le=100)
    """Questions answered wrongly that the report shows."""
    judges: tuple[JudgeConfig, ...] = Field((), max_length=10)
    """Language models that judge the answers as well; without any, nothing is sent anywhere."""
    labels: str = ""
    """What people say of answers (jsonl): `{"judge": "correct", "question": "how hot …", "label": true}`, by `id` or
    `question`; with `answer`, it counts for that answer alone. Each judge's agreement with them is measured."""

    @model_validator(mode="after")
    def _judges_fit(self) -> "AnswersConfig":
        names = [judge.name for judge in self.judges]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two judges are called {twice[0]}: give each a name of its own")
        if self.labels and not names:
            raise ValueError("labels are for judges, and there are none: leave labels out, or name judges")
        return self
