"""What a flow adds to a training, with MLflow and Prefect beside it, over the same training process by itself.

    python -m tests.benchmarks.training_overhead [--steps 100] [--rounds 5]

The two take turns. The start of both (the process, its libraries, its choice of precision) is stated apart.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from tasks.training.job import EVENTS_FILE, TrainingJob
from tasks.training.process import run_job
from tests.benchmarks.installation import new_home, prefect_server
from tests.benchmarks.reporting import save, table
from tests.benchmarks.training import Plan, tiny_jobs

WORKER = "tasks.training.worker"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        new_home(folder / "home")
        found = measure(tiny_jobs(folder, Plan(args.steps, args.rounds))["sft"], args.rounds)
    rows = [[name, median(found["seconds"][name]), median(found["starts"][name])] for name in found["seconds"]]
    added, lowest, highest = (100 * (of(found["times"]) - 1) for of in (median, min, max))
    parts = [
        f"{args.steps} steps of SFT on the tiny base, {args.rounds} rounds in turns; medians.",
        table(["", "training, s", "start, s"], rows),
        f"Within a flow a training takes {added:+.1f} % of its time (from {lowest:+.1f} to {highest:+.1f} %).",
    ]
    save("training_overhead", "What a flow adds to a training", found, parts)


def measure(of: TrainingJob, rounds: int) -> dict[str, Any]:
    """Seconds of the training and of its start, by itself and within a flow, by round."""
    from prefect import flow

    from tasks.tracking import mlflow_run
    from tasks.train import train

    @flow
    def within_a_flow(job: TrainingJob) -> None:
        with mlflow_run("benchmark", "benchmark") as run_id:
            train("benchmark", job, run_id)

    def direct(job: TrainingJob) -> None:
        list(run_job(WORKER, job))

    ways = {"direct": direct, "within a flow": within_a_flow}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    starts: dict[str, list[float]] = {name: [] for name in ways}
    with prefect_server():
        within_a_flow(replace(of, folder=of.folder / "first"))  # makes the databases
        for number in range(rounds):
            for name, call in ways.items():
                job = replace(of, folder=of.folder / f"{name} {number}")
                began = time.time()
                call(job)
                begin, done = when(job.folder)
                seconds[name].append(done - begin)
                starts[name].append(begin - began)
    times = [ours / bare for bare, ours in zip(seconds["direct"], seconds["within a flow"], strict=True)]
    return {"seconds": seconds, "starts": starts, "times": times}


def when(folder: Path) -> tuple[float, float]:
    """When the training began, and when it was done, by the events of its process."""
    events = map(json.loads, (folder / EVENTS_FILE).read_text("utf-8").splitlines())
    at = {event["event"]: event["at"] for event in events}
    return at["begin"], at["done"]


if __name__ == "__main__":
    main()
