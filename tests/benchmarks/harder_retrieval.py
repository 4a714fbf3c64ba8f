"""Retrieval that tries harder, beside one search: what it finds and costs, on real questions and on two documents.

    python -m tests.benchmarks.harder_retrieval [--questions 100]

A question at a time, as the service asks; the settings take turns within each question.
"""

import argparse
import json
import random
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tasks.config.settings import find_home
from tests.benchmarks.installation import new_home
from tests.benchmarks.reporting import save, table
from tests.realdata import SHARED

OFF: dict[str, Any] = {}
RANKED = {
    "off": OFF,
    "feedback": {"expansion": "feedback"},
    "2 hops": {"hops": 2},
    "3 hops": {"hops": 3},
}
READ = {"off": OFF, "1 neighbour": {"neighbours": 1}, "2 neighbours": {"neighbours": 2}}
K, PASSAGES = 10, 5
SEED, CHAINS = 5, 60
SYLLABLES = re.findall("..", "bakelimonurasetivodufagihojakuleminoparisotavewo")
KINDS = {
    "firms": (
        "In which town has the firm that built the lighthouse of {a} its seat?",
        (
            "The lighthouse of {a} was built in {year} by the firm {b}. It is {number} metres high, open on Sundays.",
            "{b} is a firm with its seat in {c}. It has {number} workers.",
            "{b} was founded by {d} in {year}. For years {b} made nothing but bells.",
            "Since {year} {b} has been led by {e}, who joined {b} as a clerk.",
            "{b} lost a case about the river {f}. The court let {b} pay for the damage.",
        ),
    ),
    "novels": (
        "Where was the author of {a} born?",
        (
            "{a} is a novel of {year}. It tells of two brothers who leave their village in winter. {b} {c} wrote it in "
            "a year, and {d} printed it.",
            "{b} {c} grew up in {e} as the child of a baker. The house in which {c} was born still stands there.",
            "The {f} prize went to {b} {c} for a volume of poems, which the jury called brave.",
            "{b} {c} gave the papers of half a life to the archive of {g}, where readers may see them.",
        ),
    ),
    "dishes": (
        "Which ship did the inventor of {a} work on?",
        (
            "{a} is a dish of beans and smoked fish. It is eaten cold. The recipe was first written down by the cook "
            "{b} {c}, and many families change it.",
            "{b} {c} served on the vessel {d} for {number} years and died on {e}.",
            "A street was named after {b} {c} in {year}.",
        ),
    ),
}
"""What is asked, and the pages: what names somebody, what answers, and what else is told. Of the last kind, the page
that answers shares no word with the question."""


def ask(
    reader: Any, questions: Sequence[str], settings: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, list[Any]], dict[str, float]]:
    """By setting, the passages found for each question, and the median milliseconds a question."""
    from tasks.answering.extractive import ExtractiveGenerator
    from tasks.answering.retrieving import Scope, retrieve
    from tasks.config.answering import PolicyConfig
    from tasks.index.search import Filters

    policies = {name: PolicyConfig.model_validate({"retrieval": each}) for name, each in settings.items()}
    found: dict[str, list[Any]] = {name: [] for name in settings}
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    for question in ["warm up", *questions]:
        for name, policy in policies.items():
            start = perf_counter()
            passages = retrieve(question, K, Scope(reader, Filters()), policy, ExtractiveGenerator(2)).passages
            seconds[name].append(perf_counter() - start)
            found[name].append(passages)
    return (
        {name: of[1:] for name, of in found.items()},
        {name: 1000 * float(np.median(of[1:])) for name, of in seconds.items()},
    )


def rank(reader: Any, queries: Sequence[Any]) -> dict[str, dict[str, float]]:
    """By setting, MRR@10, recall, the share of questions of which every document is among the first, and the time."""
    from tasks.evaluation.retrieval import score

    found, milliseconds = ask(reader, [query.query for query in queries], RANKED)
    scores = {}
    for name, lists in found.items():
        means = score(queries, [[(each.document, each.id) for each in passages] for passages in lists]).means
        scores[name] = {
            "MRR@10": means["mrr"].mean,
            "recall@5": means["recall@5"].mean,
            "recall@10": means["recall@10"].mean,
            "all in 5": share_of_whole(queries, lists, PASSAGES),
            "all in 10": share_of_whole(queries, lists, K),
            "ms": milliseconds[name],
        }
    return scores


def share_of_whole(queries: Sequence[Any], lists: Sequence[Any], count: int) -> float:
    return float(
        np.mean(
            [
                {*query.relevant} <= {passage.document for passage in passages[:count]}
                for query, passages in zip(queries, lists, strict=True)
            ]
        )
    )


def read(reader: Any, asked: Sequence[tuple[str, str]]) -> dict[str, dict[str, float]]:
    """By setting, how often the answer stands in what is read, the words that this has, and the time."""
    found, milliseconds = ask(reader, [question for question, _ in asked], READ)
    scores = {}
    for name, lists in found.items():
        held = {
            count: float(
                np.mean(
                    [
                        any(answer in passage.text for passage in passages[:count])
                        for (_, answer), passages in zip(asked, lists, strict=True)
                    ]
                )
            )
            for count in (1, PASSAGES)
        }
        words = [sum(len(passage.text.split()) for passage in passages[:PASSAGES]) for passages in lists]
        scores[name] = {
            "answer in the first": held[1],
            "answer in 5": held[PASSAGES],
            "words of 5": float(np.mean(words)),
            "ms": milliseconds[name],
        }
    return scores


def write_two_documents(kind: str) -> Callable[[Path], list[Any]]:
    """Writes pages of a kind, each of which names something that other pages tell of, and what is asked over both."""

    def write(folder: Path) -> list[Any]:
        from tasks.evaluation.golden import GoldenQuery

        chance = random.Random(SEED)
        asked, pages = KINDS[kind]
        queries = []
        for number in range(CHAINS):
            names = {name: "".join(chance.sample(SYLLABLES, 3)).capitalize() for name in "abcdefg"}
            values = names | {"year": 1850 + chance.randrange(150), "number": chance.randrange(20, 80)}
            for place, page in enumerate(pages):
                (folder / f"{number}-{place}.md").write_text(page.format(**values), "utf-8")
            relevant = (f"docs/{number}-0.md", f"docs/{number}-1.md")
            queries.append(GoldenQuery(query=asked.format(**values), relevant=relevant, id=str(number)))
        return queries

    return write


def write_articles(folder: Path) -> list[tuple[str, str]]:
    """A page an article of xquad, and its questions with an answer to each."""
    asked = []
    for number, article in enumerate(json.loads((SHARED / "xquad" / "xquad.en.json").read_text("utf-8"))["data"]):
        paragraphs = article["paragraphs"]
        (folder / f"{number}.md").write_text("\n\n".join(each["context"] for each in paragraphs), "utf-8")
        asked += [(each["question"], each["answers"][0]["text"]) for of in paragraphs for each in of["qas"]]
    return asked


def measured(
    write: Callable[[Path], list[Any]],
    score: Callable[[Any, list[Any]], dict[str, dict[str, float]]],
    most: int,
    **settings: Any,
) -> dict[str, dict[str, float]]:
    """The scores by setting, of at most so many questions over the index of what is written."""
    from tests.public_questions import open_index

    with tempfile.TemporaryDirectory() as folder:
        new_home(Path(folder) / "home")
        (site := Path(folder) / "site").mkdir()
        asked = write(site)
        kept = random.Random(SEED).sample(asked, min(most, len(asked)))
        return score(open_index(site, find_home(), **settings), kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=100, help="Most questions of each kind.")
    most = parser.parse_args().questions

    from tests.public_questions import write_scifact, write_xquad

    found = {
        "xquad": measured(write_xquad, rank, most),
        "scifact, a twentieth of the other abstracts": measured(
            lambda folder: write_scifact(folder, 100, 20), rank, most
        ),
        **{f"two documents, {kind}": measured(write_two_documents(kind), rank, most) for kind in KINDS},
        "neighbours, xquad in passages of 64 tokens": measured(
            write_articles, read, most, chunking={"max_tokens": 64, "overlap_tokens": 0}
        ),
    }
    parts = []
    for name, scores in found.items():
        columns = list(next(iter(scores.values())))
        rows = [[setting, *(values[column] for column in columns)] for setting, values in scores.items()]
        parts.append(f"## {name}\n\n{table(['', *columns], rows)}")
    text = (
        f"At most {most} questions each. *All in 5* is the share of questions all of whose documents are among the "
        "five passages that a release reads by default; *ms* is the median time of a search, with all that it takes."
    )
    save("harder_retrieval", "Retrieval that tries harder", {"scores": found}, [text, *parts])


if __name__ == "__main__":
    main()
