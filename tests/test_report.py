"""The morning's report: what stands in it, in what form, and where it leads."""

from pathlib import Path

import pytest
from prefect import flow

from tasks.config.settings import Home
from tasks.evaluate import Evaluation
from tasks.evaluation.golden import GoldenQuery
from tasks.evaluation.retrieval import RetrievalScores, compare, score
from tasks.records import Night, Problem
from tasks.report import LONGEST_LIST, publish, write_report
from tests.artifacts import artifacts_of

NIGHT = Night(
    index="docs",
    decision="reject",
    reasons=("Two reasons were found.", "This is the second."),
    version=7,
    live=6,
    counts={"documents added": 12_345},
    seconds={"collect": 0.25, "prepare": 61.5},
    quarantined=(Problem("docs/a.pdf", "is torn off"), Problem("docs/b|c.md", "has a line\nof | bars")),
    run_id="run-7",
)


def scores(ranks: list[int]) -> RetrievalScores:
    """Of queries whose only answer is found at these ranks."""
    queries = [GoldenQuery(f"query {n}", ("right",), id=f"q{n}", tenant="north") for n in range(len(ranks))]
    found = [[*((f"wrong{n}", "") for n in range(1, rank)), ("right", "")] for rank in ranks]
    return score(queries, found)


def rows(report: str, title: str) -> list[str]:
    """The lines of the table under a heading, without its head."""
    section = report.split(f"## {title}\n\n")[1].split("\n\n")[0]
    return section.splitlines()[2:]


def test_a_report_begins_with_the_verdict_its_reasons_and_what_is_live() -> None:
    assert write_report(NIGHT).startswith(
        "# docs: Version 7 was rejected; what was live stays live\n\n"
        "- Two reasons were found.\n- This is the second.\n\n"
        "Live now: version 6.\n\n"
    )


def test_a_report_counts_the_documents_and_tells_the_time_by_step() -> None:
    report = write_report(NIGHT)
    assert rows(report, "Documents and passages") == ["| documents added | 12,345 |"]
    assert rows(report, "Time") == ["| collect | 0.25 |", "| prepare | 61.50 |"]


def test_a_report_names_the_files_set_aside_with_their_reasons_in_one_line_each() -> None:
    assert rows(write_report(NIGHT), "Files set aside") == [
        "| `docs/a.pdf` | is torn off |",
        r"| `docs/b\|c.md` | has a line of \| bars |",
    ]


def test_a_report_lists_no_more_files_than_a_person_reads() -> None:
    many = tuple(Problem(f"docs/{number}.pdf", "is torn off") for number in range(LONGEST_LIST + 3))
    report = write_report(Night("docs", "hold", (), quarantined=many))
    assert report.count("is torn off") == LONGEST_LIST
    assert "… and 3 more" in report


def test_a_report_shows_the_scores_beside_the_champions_and_the_queries_that_lost_most() -> None:
    ours, theirs = scores([1, 4]), scores([1, 1])
    report = write_report(NIGHT, Evaluation(ours, theirs, 6, compare(ours, theirs, "mrr")))
    table = rows(report, "Scores")
    # reciprocal ranks: 1 and 1/4, before 1 and 1
    [mrr] = [row for row in table if row.startswith("| all | 2 | mrr |")]
    assert mrr.startswith("| all | 2 | mrr | 0.625 |")
    assert "| 1.000 | -0.375 |" in mrr
    assert any(row.startswith("| tenant north | 2 | recall@1 | 0.500 |") for row in table)
    assert rows(report, "Queries that lost most") == ["| q1 | 1.000 | 0.250 |"]


def test_the_report_of_a_quiet_night_leaves_out_what_it_has_not() -> None:
    report = write_report(Night("docs", "unchanged", ("Nothing is new.",), live=6))
    assert report.startswith("# docs: Nothing changed; no version was made\n\n- Nothing is new.\n")
    assert not any(f"## {title}" in report for title in ("Scores", "Queries that lost most", "Files set aside"))


@pytest.mark.usefixtures("prefect")
def test_the_report_leads_to_mlflow_where_it_is_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")

    @flow
    def publishing() -> None:
        publish(NIGHT, "# The report\n", Home(tmp_path))

    state = publishing(return_state=True)
    assert state.is_completed()
    assert state.state_details.flow_run_id
    shown = artifacts_of(state.state_details.flow_run_id)
    assert shown["reindex-docs"].startswith("# The report\n\n\nMLflow (http://mlflow.example:5000): ")
    assert "experiment `index-docs`, run `run-7`" in shown["reindex-docs"]
    assert "http://mlflow.example:5000/#/models/docs/versions/7" in shown["mlflow-docs"]


def test_a_night_outside_of_prefect_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.report.create_markdown_artifact", lambda *_, **__: pytest.fail("published"))
    publish(NIGHT, "# The report\n", Home(tmp_path))
