"""What a release saves whose model answers alone where it is sure, beside a search for every question.

    python -m tests.benchmarks.routing [--epochs 6]

Services and the teams that run them, made up. The tiny base model learns the teams of some services by heart, to say
that it does not know those of others, and to read a passage. The index holds 200 services, of which it learnt 140. A
release with routing is calibrated on one wording of the question and measured on another, both of which the model never
saw. Every question is asked both ways, in turns; the figures are of these answers, not of the calibration.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tasks.answering.assistant import Assistant
from tasks.answering.prompting import fill
from tasks.config.answering import ReleaseConfig
from tasks.config.index import ReindexConfig
from tasks.config.settings import find_home
from tasks.config.training import SftConfig
from tasks.evaluation.stages import said
from tasks.evaluation.texts import holds
from tasks.registry.connection import connect
from tasks.registry.runs import read_text
from tests.benchmarks.installation import new_home, prefect_server
from tests.benchmarks.reporting import save, table
from tests.passages import passage

ROOT = Path(__file__).resolve().parents[2]


def words(text: str) -> list[str]:
    return text.split()


FIRST = words(
    "invoice parcel ticket salary weather harbour payment order holiday library garden museum traffic battery camera "
    "ferry school market kitchen energy water forest railway cargo medicine archive-room greenhouse bakery theatre "
    "lighthouse quarry vineyard orchard laundry foundry brewery hangar depot stable studio canteen"
)
SECOND = words(
    "exporter planner reader archive mirror counter scheduler checker finder sorter printer tracker monitor bridge "
    "gateway adviser editor cleaner loader router signer broker booster catcher splitter merger ranker mapper tagger"
)
TEAMS = words(
    "Heron Falcon Otter Badger Maple Willow Granite Basalt Copper Silver Meadow River Summit Canyon Lantern Anchor "
    "Compass Harvest Thunder Velvet"
)
LEARNT = (
    "Which team runs the {}?",
    "Who runs the {}?",
    "Tell me the team behind the {}.",
    "The {} is down, which team do I call?",
    "Who looks after the {}?",
    "I have a question about the {}. Whose is it?",
)
CALIBRATED = "Which team looks after the {}?"
MEASURED = "Who do I call about the {}?"
ASKED, FAMILIAR, OTHERS = 200, 140, 700
PASSAGES = 1
PROMPT = [{"role": "user", "content": "{{ passages }}\n\n{{ question }}"}]
GOALS = {"time saved": 0.5, "tokens saved": 0.5, "accuracy lost": 0.01}

Service = tuple[str, str]
"""A service and its team."""


def make_services(seed: int) -> list[Service]:
    random = Random(seed)
    names = [f"{first} {second}" for first, second in product(FIRST, SECOND)]
    random.shuffle(names)
    return [(name, random.choice(TEAMS)) for name in names]


def page(service: Service) -> str:
    return f"# The {service[0]}\n\nThe {service[0]} is run by team {service[1]}.\n"


def rows(familiar: Sequence[Service], others: Sequence[Service], random: Random) -> Iterator[dict[str, str]]:
    """What the model learns: some teams by heart, that it does not know others, and to read passages.

    In passages every service has another team each time, so that reading is what helps.
    """
    for service, team in familiar:
        yield from ({"prompt": ask.format(service), "completion": f"Team {team}."} for ask in LEARNT)
    for service, _ in others:
        yield from ({"prompt": ask.format(service), "completion": "I do not know."} for ask in random.sample(LEARNT, 2))
    for service, _ in [*familiar, *others[: len(familiar)]]:
        for ask in random.sample(LEARNT, 2):
            shown = (service, random.choice(TEAMS))
            passages = [passage(page(shown), title=f"The {service}")]
            prompt = fill(PROMPT, ask.format(service), passages)[0]["content"]
            yield {"prompt": prompt, "completion": f"Team {shown[1]}. [1]"}


def golden(services: Iterable[Service], wording: str) -> list[dict[str, Any]]:
    return [
        {"query": wording.format(name), "relevant": [f"services/{name.replace(' ', '-')}.md"], "answers": [team]}
        for name, team in services
    ]


def prepare(folder: Path) -> list[Service]:
    """Documents, rows, golden queries and configurations; the services that are asked for, the familiar ones first."""
    services = make_services(seed=7)
    asked, others = services[:ASKED], services[ASKED : ASKED + OTHERS]
    site = folder / "services"
    site.mkdir()
    for service in asked:
        (site / f"{service[0].replace(' ', '-')}.md").write_text(page(service))
    learnt = list(rows(asked[:FAMILIAR], others, Random(1)))
    held_out = [{"prompt": CALIBRATED.format(name), "completion": f"Team {team}."} for name, team in asked[:FAMILIAR]]
    write_lines(folder / "learnt.jsonl", learnt)
    write_lines(folder / "held_out.jsonl", held_out)
    write_lines(folder / "calibrated.jsonl", golden(asked, CALIBRATED))
    shutil.copytree(ROOT / "conf", folder / "conf")
    conf = folder / "conf"
    write_yaml(
        conf / "datasets" / "teams.yaml",
        {
            "format": "prompt_completion",
            "sources": [str(folder / "learnt.jsonl")],
            "held_out": [str(folder / "held_out.jsonl")],
        },
    )
    write_yaml(
        conf / "prompts" / "teams.yaml", {"description": "Passages, then the question.", "user": PROMPT[0]["content"]}
    )
    write_yaml(
        conf / "policies" / "teams.yaml",
        {
            "passages": PASSAGES,
            "generator": {"kind": "transformers", "max_new_tokens": 16},
            "grounding": {"min_precision": 0.5},
            "routing": {"alone": True, "max_loss": 0.01},
        },
    )
    os.environ["TANDEM_CONF"] = str(conf)
    return asked


def write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_yaml(file: Path, content: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(content))


def build(folder: Path, epochs: float) -> tuple[Assistant, str]:
    """Index, adapter and release; the assistant of the release, and what its calibration promised."""
    from flows.finetune_sft import finetune_sft
    from flows.reindex import reindex
    from flows.release import release
    from tasks.releases import open_release

    sources = [{"name": "services", "location": str(folder / "services")}]
    reindex(ReindexConfig.model_validate({"name": "services", "sources": sources}))
    training = {"epochs": epochs, "learning_rate": 3e-3, "batch_rows": 16, "max_length": 512, "packing": False}
    learnt = finetune_sft(
        SftConfig.model_validate(
            {
                "name": "teams",
                "base": "tiny",
                "dataset": "teams",
                "scoring": {"scores": ["exact_match"], "max_new_tokens": 16, "max_rows": 100},
                "training": training,
                "lora": {"rank": 32},
                "checks": {"leaked": "report"},
                "gate": {"max_forgotten": 10, "max_general_loss": 1},
                "promote": "auto",
            }
        )
    )
    print(learnt.reasons)
    settings = {
        "name": "teams",
        "index": "services@champion",
        "adapter": "teams@champion",
        "prompt": "teams",
        "policy": "teams",
        "golden": str(folder / "calibrated.jsonl"),
        "gate": {"max_loss": 1.0},
        "promote": "auto",
    }
    released = release(ReleaseConfig.model_validate(settings))
    report = read_text(connect(find_home()), released.run_id, "report.md")
    promised = report.partition("## When the model answers alone")[2].partition("##")[0].strip()
    return open_release("teams", released.version, find_home()), promised


def measure(assistant: Assistant, asked: Sequence[Service]) -> list[dict[str, Any]]:
    """Both answers to each question, in turns; which comes first takes turns as well."""
    found = []
    for place, (name, team) in enumerate(asked):
        ways = [("routed", False), ("searched", True)]
        row: dict[str, Any] = {"familiar": place < FAMILIAR}
        for way, cite in ways if place % 2 else reversed(ways):
            began = time.perf_counter()
            answer = assistant.answer(MEASURED.format(name), cite=cite)
            seconds = time.perf_counter() - began
            tokens = answer.tokens_in + answer.tokens_out
            row[way] = {
                "right": holds(said(answer), [team]),
                "seconds": seconds,
                "tokens": tokens,
                "alone": answer.alone,
            }
        found.append(row)
    return found


def summarise(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    def total(way: str, what: str) -> float:
        return float(sum(row[way][what] for row in found))

    return {
        "answered alone": total("routed", "alone") / len(found),
        "right, routed": total("routed", "right") / len(found),
        "right, always searched": total("searched", "right") / len(found),
        "accuracy lost": (total("searched", "right") - total("routed", "right")) / len(found),
        "time saved": 1 - total("routed", "seconds") / total("searched", "seconds"),
        "tokens saved": 1 - total("routed", "tokens") / total("searched", "tokens"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=float, default=6)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        new_home(Path(folder) / "home")
        asked = prepare(Path(folder))
        with prefect_server():
            assistant, report = build(Path(folder), args.epochs)
        found = measure(assistant, asked)
    parts = {
        "all": found,
        "familiar": [row for row in found if row["familiar"]],
        "others": [row for row in found if not row["familiar"]],
    }
    summaries = {name: summarise(rows) for name, rows in parts.items()}
    rows = [[what, *(summary[what] for summary in summaries.values()), GOALS.get(what)] for what in summaries["all"]]
    text = f"{len(found)} questions; the release's own calibration said: {report}"
    save("routing", "Speculative routing", {"answers": found}, [text, table(["", *parts, "goal"], rows)])


if __name__ == "__main__":
    main()
