"""The service under load while its release is rolled back and forth, and what it adds to search and generation.

    python -m tests.benchmarks.service [--requests 10000] [--clients 20] [--single 500]

A real `tandem serve` in a process of its own, with the packaged embedder and extractive answers over a small index;
the two releases differ in index, prompt and policy, so that a mixed answer shows. Clients keep their connections and
ask again as soon as they are answered; every other one asks what no passage answers. The alias is moved as a hand in
MLflow does it.

What the service adds is the time that a client waits, less the search and the generation, which the response states:
HTTP, JSON, the key, the hop between threads, the grounding, and the trace. One client asks for it, one question after
the other, with and without traces in turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from tasks.config.settings import Home
from tasks.registry.connection import connect
from tests.benchmarks.reporting import save, table
from tests.homes import copy_home
from tests.released import NAME, NOT_THERE, QUESTION, mixed, move, two_releases

SERVE = "from flows.cli import main; main()"
ROUNDS = 4
WARM = 20
PAUSE = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--single", type=int, default=500, help="questions of the one client, for each way")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TANDEM_TEST_TEMPLATES"] = scratch  # as pytest's conftest sets it
        home = copy_home(two_releases(), Path(scratch, "home"))
        added = measure_added(home, args.single)
        load = {
            "with traces": measure_load(home, args.requests, args.clients),
            "without traces": measure_load(home, args.requests, args.clients, tracing={"enabled": False}),
            "and each target loaded anew": measure_load(
                home, args.requests // 3, args.clients, tracing={"enabled": False}, open_releases=1
            ),
        }
    result = {"added_ms": added, "load": load, "load_average": os.getloadavg()}
    save("service", "The service", result, [*_added(added), *_load(load)])


@contextmanager
def serving(home: Home, **settings: Any) -> Iterator[int]:
    """A real service over this home; yields its port."""
    file = home.root / "service.yaml"
    file.write_text(json.dumps({"port": 0, **settings}))
    environment = {**psutil.Process().environ(), "TANDEM_HOME": str(home.root)}
    command = [sys.executable, "-c", SERVE, "serve", NAME, "--config", str(file), "--json"]
    with Path(home.root, "service.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["address"].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(timeout=60)


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, question: str) -> tuple[int, dict[str, Any], dict[str, float], float]:
        """Status, body, and milliseconds by step and as a whole."""
        messages = [{"role": "user", "content": question}]
        body = json.dumps({"model": NAME, "messages": messages, "tenant": "north"})
        begun = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        said = response.read()
        lasted = (time.perf_counter() - begun) * 1000
        steps = [part.split(";dur=") for part in response.headers.get("Server-Timing", "").split(", ") if part]
        return response.status, json.loads(said), {name: float(value) for name, value in steps}, lasted


def measure_added(home: Home, questions: int) -> dict[str, list[float]]:
    """Milliseconds beyond search and generation of every question, with traces and without, in turns."""
    added: dict[str, list[float]] = {"with traces": [], "without traces": []}
    with (
        serving(home, tracing={"enabled": True}) as traced,
        serving(home, tracing={"enabled": False}) as bare,
    ):
        for _ in range(ROUNDS):
            for name, port in (("with traces", traced), ("without traces", bare)):
                client = Client(port)
                for number in range(questions // ROUNDS + WARM):
                    _, _, steps, lasted = client.ask(QUESTION)
                    if number >= WARM:
                        added[name].append(round(lasted - steps["search"] - steps["generation"], 3))
    return added


def measure_load(home: Home, requests: int, clients: int, **settings: Any) -> dict[str, Any]:
    """Statuses, mixed answers, seconds from each move to the first answer after it, and times of answers."""
    client = connect(home)
    move(client, 2)
    with serving(home, limits={"waiting": 1000}, **settings) as port:
        asked = _Asked(port, requests)
        begun = time.perf_counter()
        delays = []
        with ThreadPoolExecutor(clients) as pool:
            working = [pool.submit(asked.ask_on, number) for number in range(clients)]
            target = 1
            while not asked.done:
                time.sleep(PAUSE)
                moved = time.perf_counter()
                move(client, target)
                delays.append((target, moved))
                target = 3 - target
            for each in working:
                each.result()
        seconds = time.perf_counter() - begun
    return {"clients": clients, **asked.summary(delays, seconds)}


class _Asked:
    """What the clients of a load were told."""

    def __init__(self, port: int, requests: int) -> None:
        self._port, self._requests = port, requests
        self._answers: list[tuple[float, float, int, str, bool]] = []

    @property
    def done(self) -> bool:
        return len(self._answers) >= self._requests

    def ask_on(self, number: int) -> None:
        client = Client(self._port)
        while not self.done:
            begun = time.perf_counter()
            status, said, _, _ = client.ask(QUESTION if number % 2 else NOT_THERE)
            told = (said["versions"]["release"], mixed(said)) if status == 200 else ("", False)
            self._answers.append((begun, time.perf_counter(), status, *told))

    def summary(self, moves: Sequence[tuple[int, float]], seconds: float) -> dict[str, Any]:
        lasted = [(ended - begun) * 1000 for begun, ended, *_ in self._answers]
        return {
            "answers": len(self._answers),
            "failed": sum(status != 200 for _, _, status, _, _ in self._answers),
            "mixed": sum(wrong for *_, wrong in self._answers),
            "by_release": {name: sum(of == name for *_, of, _ in self._answers) for name in ("desk@1", "desk@2")},
            "moves": len(moves),
            "seconds_to_live": self._to_live(moves),
            "answers_per_second": len(self._answers) / seconds,
            "ms": {"p50": float(np.percentile(lasted, 50)), "p95": float(np.percentile(lasted, 95))},
        }

    def _to_live(self, moves: Sequence[tuple[int, float]]) -> list[float]:
        """Of each move, until the first question that the target answered was begun and the other answered no more.

        An answer is made when its turn comes, so only those that came before the next move tell of this one; of a move
        after which nobody asked for so long nothing is known.
        """
        last_answer = max(ended for _, ended, *_ in self._answers)
        ends = [moved for _, moved in moves[1:] if moved < last_answer]
        found = []
        for (target, moved), end in zip(moves, ends, strict=False):
            between = [(begun, of) for begun, ended, _, of, _ in self._answers if moved <= begun and ended < end]
            first = min((begun for begun, of in between if of == f"desk@{target}"), default=end)
            last = max((begun for begun, of in between if of != f"desk@{target}"), default=moved)
            found.append(max(first, last) - moved)
        return found


def _added(added: dict[str, list[float]]) -> list[str]:
    rows = [[name, *(float(np.percentile(of, share)) for share in (50, 95, 99))] for name, of in added.items()]
    questions = len(added["with traces"])
    return [
        "## Added to search and generation",
        f"{questions} questions for each way, one client, milliseconds.",
        table(["", "p50", "p95", "p99"], rows),
    ]


def _load(load: dict[str, dict[str, Any]]) -> list[str]:
    rows = []
    for name, found in load.items():
        live = found["seconds_to_live"]
        rows.append(
            [
                name,
                found["answers"],
                found["failed"],
                found["mixed"],
                found["moves"],
                *((median(live), max(live)) if live else ("", "")),  # too few requests to see a move
                found["answers_per_second"],
                found["ms"]["p50"],
                found["ms"]["p95"],
            ]
        )
    live = ["to live, median s", "longest, s"]
    columns = ["", "answers", "failed", "mixed", "moves", *live, "answers/s", "p50, ms", "p95, ms"]
    clients = next(iter(load.values()))["clients"]
    how = f"{clients} clients at once; the alias is moved every {PAUSE:g} s."
    return ["## Rolled back and forth under load", how, table(columns, rows)]


if __name__ == "__main__":
    main()
