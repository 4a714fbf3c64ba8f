"""How soon a change of what people ask is found, and how often one is found that is none, on real questions.

    python -m tests.benchmarks.drift
    python -m tests.benchmarks.drift --seeds 3    # a quick try

BANKING77's questions are replayed in a random order: 500 for the reference window, and what follows is watched through
the newest 200, as `tandem monitor` does by default. Quiet: 20 windows that have no question in common, without any
change. Shifts: from some question on, a share of the questions is another kind; the watch looks after every 20.
"""

import argparse
import csv
import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.config.index import EmbedderConfig
from tasks.config.monitoring import MonitorConfig
from tasks.config.settings import find_home
from tasks.evaluation.drift import Drift, Vectors, find_drift, level_of_run
from tasks.index.embedding import load_embedder
from tests.benchmarks.installation import new_home
from tests.benchmarks.reporting import save, table
from tests.realdata import SHARED

WATCH = MonitorConfig(name="drift", release="drift")
LEVEL = level_of_run(WATCH.false_alarms, WATCH.horizon)
WINDOWS, EVERY, LONGEST = 20, 20, 400
WITHIN = 200
NEW_TOPICS = 10
SHARES = (0.2, 0.3, 0.5, 1.0)
OPENINGS = (
    "Wie kann ich", "Warum kann ich nicht", "Wo kann ich", "Wann darf ich", "Muss ich etwas zahlen, um",
    "Bitte helfen Sie mir,", "Ist es möglich,", "Was brauche ich, um", "Wie lange dauert es,", "Darf meine Frau auch",
    "Seit gestern versuche ich,", "Ihre App lässt mich nicht", "Können Sie mir erklären, wie ich", "Kostet es etwas,",
)  # fmt: skip
ERRANDS = (
    "meine Karte sperren", "Geld ins Ausland überweisen", "eine neue PIN bekommen", "mein Konto schließen",
    "Bargeld abheben", "eine Überweisung zurückholen", "meine Adresse ändern", "das Limit erhöhen",
    "eine zweite Karte bestellen", "den Wechselkurs sehen", "mein Guthaben aufladen", "eine Gebühr zurückfordern",
    "mich neu anmelden", "die Lastschrift stoppen", "einen Beleg herunterladen",
)  # fmt: skip


@dataclass(frozen=True)
class Questions:
    """Embedded questions; those of BANKING77 with their intents."""

    banking: Vectors
    intents: NDArray[np.str_]
    wikipedia: Vectors
    german: Vectors


def read_questions() -> Questions:
    files = [SHARED / "banking77" / f"{half}.csv" for half in ("train", "test")]
    rows = [row for file in files for row in csv.DictReader(file.open(encoding="utf-8", newline=""))]
    stored = json.loads((SHARED / "xquad" / "xquad.en.json").read_text("utf-8"))["data"]
    asked = [one["question"] for article in stored for paragraph in article["paragraphs"] for one in paragraph["qas"]]
    german = [f"{opening} {errand}?" for opening, errand in itertools.product(OPENINGS, ERRANDS)]
    embed = load_embedder(EmbedderConfig(), find_home()).embed_queries
    intents = np.array([row["category"] for row in rows])
    return Questions(embed([row["text"] for row in rows]), intents, embed(asked), embed(german))


def found(drift: Drift) -> bool:
    """As `tandem monitor` decides it."""
    return drift.p_value <= LEVEL and drift.separation >= WATCH.min_separation


def quiet_alarms(questions: Questions, seed: int) -> list[bool]:
    order = np.random.default_rng(seed).permutation(len(questions.banking))
    reference, rest = np.split(questions.banking[order], [WATCH.reference])
    windows = (rest[place * WATCH.window : (place + 1) * WATCH.window] for place in range(WINDOWS))
    return [found(find_drift(reference, window, LEVEL)) for window in windows]


def delay(usual: Vectors, unusual: Vectors, share: float, seed: int) -> int | None:
    """Questions from the shift until it is found; None where it is not within the longest wait."""
    random = np.random.default_rng(seed)
    reference, before, after = np.split(
        usual[random.permutation(len(usual))], [WATCH.reference, WATCH.reference + WATCH.window]
    )
    shifted = np.where(
        (random.random(LONGEST) < share)[:, None],
        unusual[random.choice(len(unusual), LONGEST, replace=len(unusual) < LONGEST)],
        after[:LONGEST],
    )
    stream = np.vstack([before, shifted])
    for asked in range(EVERY, LONGEST + 1, EVERY):
        if found(find_drift(reference, stream[asked : asked + WATCH.window], LEVEL)):
            return asked
    return None


def shifts(questions: Questions, seed: int) -> Iterator[tuple[str, Vectors, Vectors]]:
    """By kind the questions as they were, and those that come up."""
    topics = np.random.default_rng(seed).choice(np.unique(questions.intents), NEW_TOPICS, replace=False)
    yield "another domain (Wikipedia)", questions.banking, questions.wikipedia
    yield "another language (German, same topics)", questions.banking, questions.german
    for count in (1, NEW_TOPICS):
        new = np.isin(questions.intents, topics[:count])
        yield f"{count} new of 77 intents", questions.banking[~new], questions.banking[new]


def interval(hits: int, of: int) -> str:
    from scipy.stats import binomtest

    between = binomtest(hits, of).proportion_ci(method="exact")
    return f"{hits / of:.1%} ({between.low:.1%} to {between.high:.1%})"


def shift_row(kind: str, share: float, delays: list[int | None]) -> dict[str, object]:
    known = sorted(LONGEST + EVERY if each is None else each for each in delays)
    within = sum(each <= WITHIN for each in known)

    def quantile(at: float) -> str:
        value = int(np.quantile(known, at, method="higher"))
        return f"> {LONGEST}" if value > LONGEST else str(value)

    return {
        "shift": kind,
        "share": f"{share:.0%}",
        f"found within {WITHIN}": interval(within, len(known)),
        "median delay": quantile(0.5),
        "90 % quantile": quantile(0.9),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory() as folder:
        new_home(Path(folder) / "home")
        questions = read_questions()
    alarms = [quiet_alarms(questions, seed) for seed in range(3 * seeds)]
    delays: dict[tuple[str, float], list[int | None]] = {}
    for seed, share in itertools.product(range(seeds), SHARES):
        for kind, usual, unusual in shifts(questions, seed):
            delays.setdefault((kind, share), []).append(delay(usual, unusual, share, seed))
    rows = [shift_row(kind, share, of) for (kind, share), of in sorted(delays.items())]
    each = [sum(series) for series in alarms]
    total = len(alarms) * WINDOWS
    quiet = {
        "false alarms in quiet windows": f"{sum(each)} of {total}: {interval(sum(each), total)}",
        f"replays with any in {WINDOWS} windows": f"{sum(map(bool, each))} of {len(each)}",
        f"most false alarms in {WINDOWS} windows": str(max(each)),
    }
    save(
        "drift",
        "How soon a change of the questions is found",
        {"quiet": quiet, "shifts": rows, "seeds": seeds},
        [
            f"Reference {WATCH.reference}, window {WATCH.window}, looks every {EVERY} questions, {seeds} replays "
            f"a shift; found at p ≤ {LEVEL:g} and a separation of {WATCH.min_separation:g}. Intervals: exact, 95 %.",
            table(["quiet", ""], [[what, value] for what, value in quiet.items()]),
            table(list(rows[0]), [list(row.values()) for row in rows]),
        ],
    )


if __name__ == "__main__":
    main()
