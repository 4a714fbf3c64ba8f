"""The report on an evaluation: a markdown artifact in Prefect; the same text, scores and every answer in MLflow."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from prefect import task

from tasks.config.evaluation import AnswersConfig
from tasks.config.settings import Home, find_home
from tasks.evaluation.agreement import agreement_table
from tasks.evaluation.gate import say_p_value
from tasks.evaluation.judgements import (
    Judgements,
    Panel,
    judge_notes,
    judge_numbers,
    score_judgements,
    tally,
    versions,
)
from tasks.evaluation.scores import Score, comparable, compare_scores
from tasks.evaluation.stages import ADDRESSES, Row, count_addresses, judge_suite, said, score_rows, slices, worst
from tasks.evaluation.statistics import estimate, say_interval
from tasks.records import Evaluated, Judgement
from tasks.register import REPORT_FILE, flat
from tasks.registry.connection import connect
from tasks.registry.runs import DECISION_TAG, log, log_table
from tasks.report import markdown_table, show_report, table_of

ROWS_FILE = "answers.json"
JUDGES_FILE = "judges.json"
LONGEST = 200
"""Characters of a text in a table."""

Asked = Mapping[str, Sequence[Row]]
"""By release, as ``name@number``; the first one is judged."""
Scored = Mapping[str, Mapping[str, Score]]
"""By release, then by score."""


def score_all(config: AnswersConfig, asked: Asked, panel: Panel) -> Scored:
    """Every score of every release, those by judges last."""
    scores = {release: score_rows(rows, config.confidence) for release, rows in asked.items()}
    for release, of in scores.items():
        for judgements in panel.by_release[release].values():
            of |= score_judgements(judgements, config.confidence)
    return scores


def summarise(
    config: AnswersConfig, asked: Asked, panel: Panel, scores: Scored, seconds: dict[str, float], run_id: str
) -> Evaluated:
    """What the evaluation came to, as one record."""
    decision, reasons = judge_suite(config, scores)
    return Evaluated(
        suite=config.name,
        decision=decision,
        reasons=reasons,
        scores={
            release: {name: score.estimate.mean for name, score in of.items() if score.rows}
            for release, of in scores.items()
        },
        addresses={release: dict(count_addresses(rows)) for release, rows in asked.items()},
        judges=judge_numbers(panel),
        seconds=seconds,
        run_id=run_id,
    )


def write_report(config: AnswersConfig, asked: Asked, panel: Panel, scores: Scored, done: Evaluated) -> str:
    """The evaluation as markdown."""
    first = next(iter(asked))
    wrong = worst(asked[first], config.worst)
    differences = _differences(scores, config.confidence)
    parts = [
        f"# {config.name}: {first} {done.decision}",
        "\n".join(f"- {reason}" for reason in done.reasons),
        "## Scores",
        table_of(_scores(scores)),
        *([f"## {first} beside the others, question by question", table_of(differences)] if differences else []),
        *(_judges(config, panel) if config.judges else []),
        "## Where questions fail",
        table_of(_addresses(asked)),
        "## By tenant, source and kind of question",
        table_of(_slices(asked, config.confidence)),
        *([f"## Questions that {first} gets wrong", table_of([_wrong(row) for row in wrong])] if wrong else []),
        "## Time",
        markdown_table(["step", "seconds"], [[step, f"{spent:.2f}"] for step, spent in done.seconds.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


@task(name="keep evaluation")
def keep_evaluation(config: AnswersConfig, asked: Asked, panel: Panel, done: Evaluated, report: str) -> None:
    """Log settings, scores, the report, the versions of judges, and every answer of every release as a table."""
    client = connect(find_home())
    settings = config.model_dump(mode="json")
    log(
        client,
        done.run_id,
        params=flat(config.model_dump(mode="json", exclude={"judges"})),  # too long for one, and kept in files below
        metrics={
            f"{release.replace('@', '_')}_{name.replace('@', '_at_')}": value
            for release, scores in done.scores.items()
            for name, value in scores.items()
        }
        | {name.replace("@", "_at_"): value for name, value in done.judges.items()},
        tags={DECISION_TAG: done.decision},
        texts={REPORT_FILE: report, "config.yaml": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}
        | ({JUDGES_FILE: json.dumps(versions(config, panel), indent=2)} if config.judges else {}),
    )
    rows = [
        _as_record(release, row) | _verdicts(panel.by_release[release], row)
        for release, of in asked.items()
        for row in of
    ]
    log_table(client, done.run_id, ROWS_FILE, rows)


def publish(done: Evaluated, report: str, home: Home) -> None:
    """Show the report in the Prefect UI, with the way to MLflow."""
    show_report("evaluation", f"evaluation-{done.suite}", done.suite, done.decision, None, done.run_id, report, home)


def _scores(scores: Scored) -> list[dict[str, str]]:
    first = next(iter(scores.values()))
    return [
        {"score": name, "questions": str(len(first[name].rows)) if name in first else ""}
        | {release: _value(of[name]) for release, of in scores.items() if name in of}
        for name in dict.fromkeys(name for of in scores.values() for name in of)
    ]


def _differences(scores: Scored, confidence: float) -> list[dict[str, str]]:
    """The first release minus every other one, for scores that can be compared."""
    (_, ours), *others = scores.items()
    return [
        {
            "score": name,
            "beside": other,
            "questions": str(found.difference.count),
            "difference": f"{found.difference.mean:+.3f}",
            f"{confidence:.0%} interval": say_interval(found.difference, "+"),
            "p": say_p_value(found),
        }
        for other, theirs in others
        for name, pair in comparable(ours, theirs).items()
        for found in [compare_scores(*pair, confidence)]
    ]


def _judges(config: AnswersConfig, panel: Panel) -> list[str]:
    """What the language models did that judged."""
    agreed = agreement_table(panel.agreements, config.confidence)
    return [
        "## Judges",
        table_of([{what: str(value) for what, value in row.items()} for row in tally(panel)]),
        "\n".join(f"- {note}" for note in judge_notes(panel)),
        *(["## Agreement of people with the judges", table_of(agreed)] if agreed else []),
    ]


def _addresses(asked: Asked) -> list[dict[str, str]]:
    counts = {release: count_addresses(rows) for release, rows in asked.items()}
    return [
        {"address": address or "–", "meaning": meaning}
        | {release: str(count[address]) for release, count in counts.items()}
        for address, meaning in ADDRESSES.items()
    ]


def _slices(asked: Asked, confidence: float) -> list[dict[str, str]]:
    """Share of right answers by group."""
    by_release = {release: slices(rows) for release, rows in asked.items()}
    first = next(iter(by_release.values()))
    return [
        {"slice": group, "questions": str(len(first[group]))}
        | {
            release: f"{found.mean:.3f} ({say_interval(found)})"
            for release, groups in by_release.items()
            for found in [estimate([float(row.right) for row in groups[group]], confidence)]
        }
        for group in first
    ]


def _wrong(row: Row) -> dict[str, str]:
    return {
        "question": row.query.query,
        "why": ADDRESSES[row.address],
        "expected": _cut("; ".join(row.query.answers) or ", ".join(row.query.relevant)),
        "said": _cut(row.whole.text),
        "cited": _cut(", ".join(dict.fromkeys(passage.document for passage in row.whole.cited))),
    }


def _as_record(release: str, row: Row) -> dict[str, Any]:
    """A row of the table in MLflow."""
    return {
        "release": release,
        "question": row.query.query,
        "tenant": row.query.tenant or "",
        "slice": row.query.slice or "",
        "relevant": ", ".join(row.query.relevant),
        "expected": "; ".join(row.query.answers),
        "answer": row.whole.text,
        "cited": ", ".join(passage.id for passage in row.whole.cited),
        "right": row.right,
        "address": row.address,
        "with the relevant documents alone": row.given.text,
        "without them": row.without.text,
        "found": ", ".join(passage.id for passage in row.found[:10]),
        "confidence": row.whole.confidence,
        "said": said(row.whole),
    }


def _verdicts(judged: Mapping[str, Judgements], row: Row) -> dict[str, str]:
    """More columns of the table: by judge its verdict, its reason and its version."""
    columns: dict[str, str] = {}
    for judge, judgements in judged.items():
        judgement = judgements.get(row.query.id, Judgement(None, ""))
        columns |= {
            f"judge {judge}": {True: "yes", False: "no", None: ""}[judgement.passed],
            f"judge {judge} because": judgement.why,
            f"judge {judge} version": judgement.judge,
        }
    return columns


def _value(score: Score) -> str:
    return f"{score.estimate.mean:.3f} ({say_interval(score.estimate)})" if score.rows else ""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
