"""What the command prints for people."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.records import (
        Advised,
        Answer,
        Curated,
        Diagnosed,
        Evaluated,
        Finetune,
        Housekeeping,
        Monitored,
        Night,
        Released,
        Shadowed,
        Trouble,
    )
    from tasks.schedules import ScheduleState

VENV = ".venv/bin"


def print_services(rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        columns = ["name", "condition", "address", "pid", "since", "restarts", "restarted", "errors", "log"]
        print_table(
            [*columns[:6], "last restart", "errors in 24 h", "log"],
            [[row[column] for column in columns] for row in rows],
        )
        print()


def print_schedules(schedules: "Sequence[ScheduleState]", issues: "Sequence[Trouble]") -> None:
    if schedules:
        rows = [
            [each.deployment, each.schedule, _minute(each.next), _minute(each.last), each.ended] for each in schedules
        ]
        print_table(["deployment", "schedule", "next run", "last run", "ended"], rows)
        print()
    for issue in issues:
        print(f"{issue.what}\n    {issue.remedy}")


def _minute(moment: datetime | None) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if moment else "none"


def print_night(night: "Night") -> None:
    version = f", version {night.version}" if night.version else ""
    rows: list[list[object]] = [["decision", night.decision + version], ["live", night.live]]
    rows += [[name, f"{count:,}"] for name, count in night.counts.items()]
    for metric, value in night.scores.items():
        beside = f"   champion {night.champion_scores[metric]:.3f}" if metric in night.champion_scores else ""
        rows.append([metric, f"{value:.3f}{beside}"])
    rows += [[f"seconds to {step}", f"{spent:.2f}"] for step, spent in night.seconds.items()]
    print_table([night.index, ""], rows)
    for reason in night.reasons:
        print(f"- {reason}")
    for problem in night.quarantined[:10]:
        print(f"  set aside: {problem.document}: {problem.reason}")


def print_finetune(done: "Finetune") -> None:
    _print_scored(done, done.adapter, [[name, f"{count:,}"] for name, count in done.counts.items()])


def print_release(done: "Released") -> None:
    _print_scored(done, done.release, [[kind, part] for kind, part in done.parts.items()])


def print_evaluated(done: "Evaluated") -> None:
    from tasks.evaluation.stages import ADDRESSES

    names = next(iter(done.scores.values()))
    print_table(
        [done.suite, *done.scores], [[name, *(_rounded(of.get(name)) for of in done.scores.values())] for name in names]
    )
    counts = done.addresses.values()
    print_table(
        ["fails in", *done.addresses, ""],
        [[where, *(of.get(where, 0) for of in counts), text] for where, text in ADDRESSES.items() if where],
    )
    print(f"{next(iter(done.scores))} {done.decision}")
    for reason in done.reasons:
        print(f"- {reason}")


def print_shadowed(done: "Shadowed") -> None:
    names = done.scores[done.champion]
    beside = (done.champion, done.candidate)
    print_table(
        [done.name, *beside], [[name, *(_rounded(done.scores[each][name]) for each in beside)] for name in names]
    )
    print_table(["", ""], [[name, f"{count:,}"] for name, count in done.counts.items()])
    print(f"{done.candidate} against {done.champion}: {done.decision}")
    for reason in done.reasons:
        print(f"- {reason}")


def _print_scored(done: "Finetune | Released", name: str, details: list[list[object]]) -> None:
    rows: list[list[object]] = [["decision", f"{done.decision}, version {done.version}"], ["live", done.live], *details]
    rows += [[f"seconds to {step}", f"{spent:.2f}"] for step, spent in done.seconds.items()]
    print_table([name, ""], rows)
    names = list(dict.fromkeys(name for scores in done.scores.values() for name in scores))
    found = [[name, *(_rounded(scores.get(name)) for scores in done.scores.values())] for name in names]
    print_table(["score", *done.scores], found)
    for reason in done.reasons:
        print(f"- {reason}")


def print_answer(answer: "Answer") -> None:
    print(answer.text)
    cited = {number for sentence in answer.sentences for number in sentence.cited}
    for number, passage in enumerate(answer.passages, start=1):
        if number in cited:
            print(f"  [{number}] {_place(asdict(passage))}")
    for each in answer.filtered:
        print(f"  {each.action} in {each.where}: {each.what}")
    parts = ", ".join(part for part in answer.versions.values() if part)
    print(f"({parts}; confidence {answer.confidence:.2f}, {1000 * sum(answer.seconds.values()):.0f} ms)")


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def print_passages(passages: Sequence[dict[str, Any]]) -> None:
    for rank, passage in enumerate(passages, start=1):
        print(f"{rank}. {passage['score']:.3f}  {_place(passage)}")
        before, text, after = passage.get("in_place") or ("", passage["text"][:300], "")
        print(f"   {_line(before)}[{_line(text)}]{_line(after)}\n" if before or after else f"   {_line(text)}\n")
    if not passages:
        print("nothing found")


def _place(passage: Mapping[str, Any]) -> str:
    headings = " › ".join(dict.fromkeys([passage["title"] or "", *passage["heading"]]))
    return f"{passage['document']}:{passage['start']}-{passage['end']}  {headings}"


def print_demo(result: dict[str, Any], folder: Path) -> None:
    from tasks.records import Advised, Diagnosed

    columns = ["step", "decision", "version", "live", "what", "score", "why"]
    for what in ("index", "adapter", "release"):
        story = result[what]
        print(f"\nThe {what}:")
        print_table(columns, [[step.get(column) for column in columns] for step in story["steps"]])
        if what == "release":
            _print_answers(story)
        print(f"\n“{story['asked']}” answered before the rollback:\n  {story['before_rollback'][:240]}")
        print(f"and after it, without a restart:\n  {story['after_rollback'][:240]}")
        print("The ledger:\n" + "\n".join(f"  {line}" for line in story["ledger"]))
    print("\nWhy answers fail:")
    print_diagnosed(Diagnosed(**result["diagnosis"]))
    print("\nRetrieval, fine-tuning, or both:")
    print_advised(Advised(**result["advice"]))
    print(f"Cost by volume: {result['plot']}")
    print(f"\n{result['seconds']} s. To look further:")
    for command in (
        f"TANDEM_HOME={folder} {VENV}/tandem status",
        f"TANDEM_HOME={folder} {VENV}/tandem search samples '{result['index']['asked']}' --tenant south",
        f"TANDEM_HOME={folder} {VENV}/tandem unhold samples --reason 'mended'",
        f"{VENV}/mlflow server --backend-store-uri sqlite:///{folder}/mlruns/mlflow.db --port 5000",
        f"PREFECT_HOME={folder}/data/prefect {VENV}/prefect server start",
    ):
        print(f"  {command}")


def _print_answers(story: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    print("\nIts guardrails, as its report in Prefect and MLflow has them:")
    Console(width=None if sys.stdout.isatty() else 160).print(Markdown(story["guardrails"]))
    for asked in (story["answered"], story["refused"]):
        print(f"\n“{asked['question']}”\n  {asked['text']}")
        for place in asked["cited"]:
            print(f"  from {place}")
    client = story["client"]
    print(
        f"\nA client kept asking while the release was rolled back: {client['answers']} answers, {client['failed']} "
        f"failed, {client['mixed']} of two releases at once; {client['seconds']} s from the command to the last one of "
        "the release rolled back."
    )


def _line(text: str) -> str:
    return " ".join(text.split())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, show_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    # what is not a terminal has no width: a file or another program gets whole lines
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_advised(done: "Advised") -> None:
    scores: dict[str, list[object]] = {}
    for each in done.scores:
        scores.setdefault(each["dimension"], []).append(_rounded(each["score"]))
    totals = ["mean by weight", *map(_rounded, done.totals.values())]
    print_table([done.name, *done.totals], [[name, *of] for name, of in scores.items()] + [totals])
    sign = done.currency
    costs = [
        [f"{sign}{of['a_month']:,.2f}", f"{sign}{of['all_in_a_request']:.4f}", of["ruled_out"]] for of in done.costs
    ]
    print_table(
        ["way", "a month", "a request", "ruled out"],
        [[of["way"], *row] for of, row in zip(done.costs, costs, strict=True)],
    )
    print(f"{done.name}: {done.decision}, in {done.confidence:.1%} of the draws")
    for line in (*done.reasons, *done.warnings):
        print(f"- {line}")
    for number, step in enumerate(done.steps, start=1):
        print(f"{number}. {step}")


def print_housekeeping(done: "Housekeeping") -> None:
    verb = "removed" if done.applied else "would go"
    print_table(
        [verb, "count", "why"],
        [[f"{each.kind}: {each.what}", f"{each.count:,}", each.failed or each.why] for each in done.removals],
    )
    print_table(
        ["megabytes", "before", "after"],
        [[kind, *(f"{size / 1e6:,.1f}" for size in sizes)] for kind, sizes in done.space.items()],
    )
    for sentence in done.mended:
        print(f"- {sentence}")
    for trouble in done.troubles:
        print(f"{trouble.what}\n    {trouble.remedy}")
    for sentence in done.left_alone:
        print(sentence)
    if not done.applied:
        print("Nothing was changed: `--apply`, or `apply: true` in the file, does it.")


def print_monitored(done: "Monitored") -> None:
    columns = ("before", "now", "p")
    if done.scores:
        scores = [[name, *(f"{of[each]:.3g}" for each in columns)] for name, of in done.scores.items()]
        print_table([done.name, *columns], scores)
    print_table(["compared", ""], [[name, f"{count:,}"] for name, count in done.counts.items()])
    print(f"{done.release}: {done.decision}")
    for note in done.notes:
        print(f"- {note}")
    for each in done.found:
        print(f"- {each.sign}{' (known)' if each.known else ''}: {each.sentence}\n    {each.remedy}")


def print_diagnosed(done: "Diagnosed") -> None:
    rows: list[list[object]] = [[kind, count] for kind, count in done.causes.items() if count]
    print_table([done.name, "failed answers"], sorted(rows, key=lambda row: -int(str(row[1]))))
    print(f"{done.failed} of {done.asked} answers of {done.release} fail")
    for kind, fix in done.fixes.items():
        print(f"- {kind}: {fix}\n    {done.commands[kind]}")
    for note in done.notes:
        print(f"- {note}")


def print_curated(done: "Curated") -> None:
    states = ("waiting", "approved", "rejected")
    rows = [[kind, *(of[state] for state in states), done.versions.get(kind)] for kind, of in done.rows.items()]
    if rows:
        print_table([done.name, *states, "version"], rows)
    new = [[source, kind, count] for source, of in done.drafted.items() for kind, count in of.items()]
    if new:
        print_table(["new rows from", "kind", "rows"], new)
    if done.left_out:
        print_table(["left out because", "rows"], [[why, count] for why, count in done.left_out.items()])
    for reason in done.reasons:
        print(f"- {reason}")
