"""Lets a language model judge the answers of a release, where a suite names one."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from prefect import task

from tasks.answering.endpoint import EndpointGenerator
from tasks.config.evaluation import JudgeConfig
from tasks.evaluation.judgements import to_judge, version_of
from tasks.evaluation.stages import Row
from tasks.progress import progress
from tasks.records import Judged, Judgement

DEAD = 10
"""So many failures before the first verdict, and a judge is asked no more."""


@task(name="assess", task_run_name="assess {release} by {judge.name}")
def assess(judge: JudgeConfig, release: str, rows: Sequence[Row]) -> dict[str, Judgement]:
    """By question, what the judge says of each answer; it is asked no more once its score could not be reported."""
    from tasks.registry.judges import judging  # takes a second to import, and few suites have judges

    cases = to_judge(judge, rows)
    client = EndpointGenerator(judge.endpoint)
    verdicts: Counter[bool] = Counter()
    """How many judgements are verdicts, and how many are none."""

    def ask(look: Callable[[Judged], Judgement], case: Judged) -> Judgement:
        if 2 * verdicts[False] > len(cases) or (verdicts[False] >= DEAD and not verdicts[True]):
            return Judgement(None, "not asked, because the judge had failed too often before")
        return look(case)

    with (
        progress("assess", f"{judge.name}-{release.replace('@', '-')}", len(cases)) as advance,
        judging(judge, lambda turns: client.answer("", (), turns)) as look,
        ThreadPoolExecutor(judge.concurrency) as pool,
    ):
        found = {}
        for question, judgement in zip(cases, pool.map(partial(ask, look), cases.values()), strict=True):
            given = judgement.passed is not None
            found[question] = replace(judgement, judge=version_of(judge, judgement.model)) if given else judgement
            verdicts[given] += 1
            advance(1)
    return found
