"""The report on a comparison: a markdown artifact in Prefect; the same text, measures and every pair in MLflow.

The report shows no text of a recorded question or answer, only the ids of their traces: such texts stay in MLflow,
where they came from.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

import yaml
from prefect import task

from tasks.config.settings import Home, find_home
from tasks.config.shadow import ShadowConfig
from tasks.evaluation.pairs import BASES, Measure, Pair, Reply, measures, most_unlike, share, worth
from tasks.evaluation.statistics import Estimate, say_interval
from tasks.records import Outcome, Shadowed
from tasks.register import REPORT_FILE, flat
from tasks.registry.connection import connect
from tasks.registry.runs import CANDIDATE_TAG, CHAMPION_TAG, DECISION_TAG, log, log_table
from tasks.report import markdown_table, show_report, table_of

PAIRS_FILE = "pairs.json"
VERDICTS = {"no worse": "no worse than", "worse": "worse than", "undecided": "not shown to be no worse than"}


def summarise(
    config: ShadowConfig,
    champion: str,
    candidate: str,
    pairs: Sequence[Pair],
    outcome: Outcome,
    asked: int,
    seconds: dict[str, float],
    run_id: str,
) -> Shadowed:
    """What the comparison came to, as one record; `asked` are the questions there were."""
    counted = [pair for pair in pairs if pair.counts]
    found = measures(counted, config.confidence)
    worths = found[0].difference
    changed = [pair for pair in counted if pair.question.disliked]
    return Shadowed(
        name=config.name,
        champion=champion,
        candidate=candidate,
        decision=outcome,
        reasons=(_reason(config, champion, candidate, outcome, worths, asked), *_notes(pairs, counted)),
        counts={
            "questions": asked,
            "pairs": len(pairs),
            "pairs that count": len(counted),
            "agree": sum(pair.agrees(config.similar) for pair in counted),
            **{f"judged by {basis}": count for basis, count in _bases(counted).items()},
            "disliked answers": len(changed),
            "disliked answers that change": sum(not pair.agrees(config.similar) for pair in changed),
        },
        scores={
            champion: {each.name: each.champion for each in found} | {"seconds": _median(counted, "champion")},
            candidate: {each.name: each.candidate for each in found} | {"seconds": _median(counted, "candidate")},
        },
        difference=(worths.mean, worths.low, worths.high),
        seconds=seconds,
        run_id=run_id,
    )


def write_report(config: ShadowConfig, pairs: Sequence[Pair], done: Shadowed) -> str:
    """The comparison as markdown."""
    counted = [pair for pair in pairs if pair.counts]
    found = measures(counted, config.confidence)
    unlike = most_unlike(counted, config.worst)
    parts = [
        f"# {done.name}: {done.candidate} is {VERDICTS[done.decision]} {done.champion}",
        "\n".join(f"- {reason}" for reason in done.reasons),
        "## Both beside each other",
        f"The intervals hold at {config.confidence:.0%} whenever one stops, each by itself.",
        table_of([*(_row(each, done) for each in found), _time(counted, done)]),
        "## Agreement",
        table_of(_agreement(counted, config)),
        "## What an answer's worth is judged by",
        table_of([{"by": by, "pairs": str(count), "worth": BASES[by]} for by, count in _bases(counted).items()]),
        *(["## Pairs that disagree most", table_of([_unlike(pair, done) for pair in unlike])] if unlike else []),
        "## Counts",
        markdown_table(["what", "count"], [[what, f"{count:,}"] for what, count in done.counts.items()]),
        "## Time",
        markdown_table(["step", "seconds"], [[step, f"{spent:.2f}"] for step, spent in done.seconds.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


@task(name="keep shadow")
def keep_shadow(config: ShadowConfig, pairs: Sequence[Pair], done: Shadowed, report: str) -> None:
    """Log settings, the verdict as tags, measures, the report, and every pair as a table."""
    client = connect(find_home())
    settings = config.model_dump(mode="json")
    sides = {"champion": done.scores[done.champion], "candidate": done.scores[done.candidate]}
    mean, low, high = done.difference
    log(
        client,
        done.run_id,
        params=flat(settings),
        metrics={f"{side}_{name}": value for side, of in sides.items() for name, value in of.items()}
        | {what.replace(" ", "_"): float(count) for what, count in done.counts.items()}
        | {"difference": mean, "difference_low": low, "difference_high": high},
        tags={
            DECISION_TAG: done.decision,
            CHAMPION_TAG: done.champion,
            CANDIDATE_TAG: done.candidate,
            "tandem.reason": done.reasons[0],
        },
        texts={REPORT_FILE: report, "config.yaml": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)},
    )
    log_table(client, done.run_id, PAIRS_FILE, [_as_record(pair, config.similar) for pair in pairs])


def publish(done: Shadowed, report: str, home: Home) -> None:
    """Show the report in the Prefect UI, with the way to MLflow."""
    show_report("shadow", f"shadow-{done.name}", done.name, done.decision, None, done.run_id, report, home)


def _reason(
    config: ShadowConfig, champion: str, candidate: str, outcome: Outcome, difference: Estimate, asked: int
) -> str:
    numbers = (
        f"worth of an answer {difference.mean:+.3f} against {champion}, {config.confidence:.0%} interval at any time "
        f"{say_interval(difference, '+')}, after {difference.count} of {asked} questions"
    )
    if outcome == "worse":
        return f"{candidate} loses more than the tolerated {config.max_loss:.3f}: {numbers}."
    if outcome == "no worse":
        return f"{candidate} loses no more than the tolerated {config.max_loss:.3f}: {numbers}."
    more = "raise max_pairs" if asked >= config.max_pairs else "more has to be asked first, or raise days"
    tolerated = f"the tolerated {config.max_loss:.3f}"
    return f"Whether {candidate} loses more than {tolerated} is not shown: {numbers}. To know, {more}."


def _notes(pairs: Sequence[Pair], counted: Sequence[Pair]) -> list[str]:
    notes = []
    if errors := Counter(pair.candidate.error for pair in pairs if pair.candidate.error):
        error, _ = errors.most_common(1)[0]
        notes.append(f"The candidate failed at {errors.total()} questions, most often so: {error}.")
    if failed := len(pairs) - len(counted):
        notes.append(f"Both failed at {failed} questions, which say nothing of either and are left out.")
    if by := _bases(counted).get("support"):
        notes.append(
            f"Of {by} of {len(counted)} questions nobody said what is right: there an answer counts by what its "
            "sources hold of it and a refusal counts nothing, so a release that rightly refuses more looks worse."
        )
    return notes


def _bases(pairs: Sequence[Pair]) -> dict[Any, int]:
    counts = Counter(pair.question.basis for pair in pairs)
    return {basis: counts[basis] for basis in BASES if counts[basis]}


def _row(found: Measure, done: Shadowed) -> dict[str, str]:
    return {
        "mean": {"refused": "share refused", "cites": "share with citations", "failed": "share failed"}.get(
            found.name, "worth of an answer"
        ),
        done.champion: f"{found.champion:.3f}",
        done.candidate: f"{found.candidate:.3f}",
        "difference": f"{found.difference.mean:+.3f}",
        "interval": say_interval(found.difference, "+"),
    }


def _time(pairs: Sequence[Pair], done: Shadowed) -> dict[str, str]:
    before, now = _median(pairs, "champion"), _median(pairs, "candidate")
    return {
        "mean": "milliseconds (median)",
        done.champion: f"{1000 * before:.1f}",
        done.candidate: f"{1000 * now:.1f}",
        "difference": f"{1000 * (now - before):+.1f}",
    }


def _agreement(pairs: Sequence[Pair], config: ShadowConfig) -> list[dict[str, str]]:
    both = [pair for pair in pairs if not (pair.champion.refused or pair.candidate.refused)]
    answered = {
        "agree (both refuse, or the same documents and similar words)": [pair.agrees(config.similar) for pair in pairs],
        "only one refuses": [pair.champion.refused != pair.candidate.refused for pair in pairs],
        "of those that both answer, cite the same documents": [
            pair.champion.documents == pair.candidate.documents for pair in both
        ],
        f"of those that both answer, share {config.similar:.0%} of their words": [
            pair.same_words >= config.similar for pair in both
        ],
    }
    rows = []
    for what, values in answered.items():
        found = share(values, config.confidence)
        shown = f"{found.mean:.3f}" if values else ""
        rows.append({"pairs that": what, "of": str(len(values)), "share": shown, "interval": say_interval(found)})
    return rows


def _unlike(pair: Pair, done: Shadowed) -> dict[str, str]:
    question = pair.question
    return {
        "question": question.text if question.golden else f"`{question.id}`",
        "likeness": f"{pair.likeness:.2f}",
        "worth": f"{pair.difference:+.3f}",
        done.champion: _shown(pair.champion),
        done.candidate: _shown(pair.candidate),
    }


def _shown(reply: Reply) -> str:
    if reply.answer is None:
        return "failed"
    return "refused" if reply.refused else ", ".join(sorted(reply.documents)) or "no citation"


def _as_record(pair: Pair, similar: float) -> dict[str, Any]:
    """A row of the table in MLflow; the texts of answers only where those of the recorded one were kept."""
    question = pair.question
    record = {
        "id": question.id,
        "question": question.text,
        "tenant": question.tenant or "",
        "judged by": question.basis,
        "agree": pair.agrees(similar),
        "likeness": pair.likeness,
        "difference": pair.difference,
        "disliked": question.disliked,
        "counts": pair.counts,
    }
    for side, reply in (("champion", pair.champion), ("candidate", pair.candidate)):
        answer = reply.answer
        record |= {
            f"{side} answer": answer.text if answer and question.keeps_answers else "",
            f"{side} cites": ", ".join(passage.id for passage in answer.cited) if answer else "",
            f"{side} refused": reply.refused,
            f"{side} worth": worth(reply, question),
            f"{side} seconds": reply.seconds,
            f"{side} error": reply.error,
        }
    return record


def _median(pairs: Sequence[Pair], side: str) -> float:
    times = [reply.seconds for pair in pairs if (reply := getattr(pair, side)).answer]
    return median(times) if times else 0.0
