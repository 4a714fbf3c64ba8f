"""A week in little: many nights by the clock, with edits, faults and both pages in a browser; what is said is true.

Six indexes have a night every minute. Between the nights pages are edited and things break: each fault has to be said
by `tandem status`, and has to be over after what mends it. Every night's state is compared with the registry; at
the end every index answers what its pages say. Memory, open files, logs and the home are measured throughout.

python -m tests.benchmarks.week [--nights 200]
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
import yaml
from mlflow import MlflowClient
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from tasks.config.services import read_services, runs
from tasks.config.settings import Home
from tasks.lock import model_lock
from tasks.processes import descendants
from tasks.registry.connection import connect, registry
from tasks.registry.ledger import history
from tasks.registry.pointers import pointers
from tasks.services import condition
from tasks.serving import reader_of
from tests.benchmarks.reporting import save, table
from tests.browser import CHROMIUM, browser_page
from tests.homes import use_home
from tests.installation import Installation, installed, tandem
from tests.nights import golden_for_facts, page, write_facts
from tests.waiting import wait_for

INDEXES = [f"docs{number}" for number in range(1, 7)]
STATES = re.compile(r"(Promoted v(\d+)|Nothing changed|Held: .+|Rejected: .+|Cancelled|Crashed)$")


@dataclass
class Week:
    """What happened so far."""

    here: Installation
    folder: Path
    client: MlflowClient
    random: Random = field(default_factory=lambda: Random(7))
    edits: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def home(self) -> Home:
        return self.here.home

    def status(self) -> str:
        return tandem(self.home, "status").stdout

    def edit(self) -> None:
        """Add, change, move or delete a page; those that golden queries ask for stay."""
        site = self.folder / self.random.choice(INDEXES)
        extra = sorted(site.glob("extra*.md"))
        kind = self.random.choice(["add", "add", "change", "move", "delete"])
        number = sum(self.edits.values())
        if kind == "add" or not extra:
            page(site, f"extra{number}", f"Item number {number} is kept on shelf {number % 17}.")
        elif kind == "change":
            name = self.random.choice(extra).stem
            page(site, name, f"Item {name} moved to shelf {number % 19} in week {number}.")
        elif kind == "move":
            self.random.choice(extra).rename(site / f"extra{number}.md")
        else:
            self.random.choice(extra).unlink()
        self.edits[kind] += 1

    def fault(self, name: str, harm: Callable[[], None], said: str, mend: Callable[[], object], seconds: float) -> None:
        """Break something, wait until it is said, mend it, wait until it is no longer said."""
        began = time.monotonic()
        harm()
        heard = self._until(lambda: said in self.status(), seconds)
        mend()
        over = self._until(lambda: said not in self.status(), seconds)
        took = time.monotonic() - began
        self.faults.append({"fault": name, "said": heard, "over": over, "seconds": round(took)})
        print(f"{name}: said {heard}, over {over}, {took:.0f} s", flush=True)
        if not (heard and over):
            self.wrong.append(f"{name}: said {heard}, over {over}")

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.5)
        return False

    def sample(self) -> None:
        """Memory and open files of each service with what it started, and the size of logs and home."""
        found: dict[str, float] = {}
        for name, service in read_services(self.home).items():
            if runs(service):
                own = psutil.Process(service.pid)
                family = [own] if name.startswith("worker") else [own, *own.children(recursive=True)]
                found[f"MB of {name}"] = sum(each.memory_info().rss for each in family) / 1e6
                found[f"files of {name}"] = sum(each.num_fds() for each in family)
        sizes = {"logs": self.home.data / "logs", "home": self.home.root}
        for name, folder in sizes.items():
            files = [file for file in folder.rglob("*") if file.is_file()]
            found[f"MB of {name}"] = sum(file.stat().st_size for file in files if file.exists()) / 1e6
        self.samples.append(found)

    def look(self) -> None:
        """Open both pages, as people do."""
        if CHROMIUM is None:
            return
        with browser_page() as browser:
            bad: list[str] = []
            browser.on("response", lambda each: bad.append(f"{each.status} {each.url}") if each.status >= 500 else None)
            browser.goto(self.here.address("prefect"))
            browser.get_by_role("link", name="Runs", exact=True).first.click()
            browser.wait_for_timeout(2000)
            browser.goto(f"{self.here.address('mlflow')}/#/models/docs1")
            browser.wait_for_timeout(2000)
            self.wrong += [f"a page answered {each}" for each in bad]

    def ended(self) -> list[FlowRun]:
        """All nights that ended, oldest first."""
        types = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
        where = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)))
        found: list[FlowRun] = []
        with get_client(sync_client=True) as client:
            while len(
                some := client.read_flow_runs(
                    flow_run_filter=where, sort=FlowRunSort.START_TIME_ASC, limit=200, offset=len(found)
                )
            ):
                found += some
        return found


def cut_off(week: Week) -> None:
    """`tandem down` in the middle of a night, and `up` again."""
    with model_lock(week.home.locks, "docs1", 60):  # the night of it waits
        time.sleep(70)
        assert tandem(week.home, "down").returncode == 0


def emptied(week: Week) -> Callable[[], None]:
    site, aside = week.folder / "docs2", week.folder / "aside"

    def harm() -> None:
        shutil.move(site, aside)
        site.mkdir()

    return harm


def refill(week: Week) -> None:
    shutil.rmtree(week.folder / "docs2")
    shutil.move(week.folder / "aside", week.folder / "docs2")


def break_things(week: Week) -> list[Callable[[], None]]:
    """The faults, in their order; each mends itself again."""
    here, home, client = week.here, week.home, week.client

    def kill(name: str) -> None:
        psutil.Process(here.pid(name)).kill()

    def restarts(name: str) -> int:
        return read_services(home)[name].restarts

    def killed(name: str) -> Callable[[], None]:
        def do() -> None:
            before = restarts(name)
            kill(name)
            wait_for(lambda: restarts(name) > before and condition(read_services(home)[name]) == "running", 60)
            week.faults.append({"fault": f"{name} killed", "said": True, "over": True, "seconds": 0})
            print(f"{name} was killed and is back", flush=True)

        return do

    def silent_worker() -> None:
        def harm() -> None:
            here.end_supervisor()
            kill("worker-cpu")

        up = lambda: tandem(home, "up", here.deployments)  # noqa: E731
        week.fault("worker and supervisor killed", harm, "the service worker-cpu is gone", up, 60)

    def no_alias() -> None:
        live = pointers(client, "docs3").champion

        def mend() -> None:
            tandem(home, "promote", "docs3", live)

        def harm() -> None:
            registry(client).delete_registered_model_alias("docs3", "champion")

        week.fault("alias champion deleted", harm, "docs3: nothing is live", mend, 60)

    def edited() -> None:
        text = here.deployments.read_text()

        def harm() -> None:
            here.deployments.write_text(text.replace("timezone: UTC", "timezone: Europe/Berlin"))

        says = f"{here.deployments} was edited and not deployed (timezone)"
        week.fault("deployments edited", harm, says, lambda: here.deployments.write_text(text), 60)

    def broken_source() -> None:
        site = "reindex/docs2"
        says = "Held"

        def told() -> bool:
            return any(line for line in week.status().splitlines() if site in line and says in line)

        emptied(week)()
        held = week._until(told, 240)
        refill(week)
        over = week._until(lambda: not told(), 240)
        week.faults.append({"fault": "a source emptied", "said": held, "over": over, "seconds": 0})
        print(f"a source emptied: held {held}, over {over}", flush=True)
        if not (held and over):
            week.wrong.append(f"a source emptied: held {held}, over {over}")

    def interrupted() -> None:
        cut_off(week)
        assert tandem(home, "up", here.deployments).returncode == 0
        week.faults.append({"fault": "down in the middle of a night", "said": True, "over": True, "seconds": 0})
        print("down and up", flush=True)

    def reboot() -> None:
        processes = descendants(home)
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, 10)
        assert tandem(home, "up", here.deployments).returncode == 0
        week.faults.append({"fault": "everything killed", "said": True, "over": True, "seconds": 0})
        print("killed and up", flush=True)

    return [
        killed("worker-cpu"),
        no_alias,
        killed("prefect"),
        silent_worker,
        broken_source,
        killed("watcher"),
        edited,
        interrupted,
        killed("mlflow"),
        reboot,
        killed("postgres"),
        no_alias,
    ]


def check_nights(week: Week, ended: list[FlowRun]) -> Counter[str]:
    """Every night's state is one of those that are named, and a version that it promoted was promoted."""
    kinds: Counter[str] = Counter()
    moves = {name: {move.after for move in history(week.client, name) if move.what == "champion"} for name in INDEXES}
    for run in ended:
        said = str(run.state_name)
        kinds[said.split(" v")[0].split(":")[0]] += 1
        index = run.name.removeprefix("re-index ")
        found = STATES.match(said)
        if not found:
            week.wrong.append(f"{run.name} ended as {said}: {run.state.message if run.state else ''}"[:200])
        elif found[2] and index in moves and int(found[2]) not in moves[index]:
            week.wrong.append(f"{run.name} says {said}, and the ledger has no such move")
    return kinds


def check_indexes(week: Week) -> None:
    """Each live index holds exactly the documents of its folder, with what stands in them now."""
    for name in INDEXES:
        reader = reader_of(name, "champion", week.home)
        there = {document.partition("/")[2] for document in reader.store.documents()}
        should = {file.name for file in (week.folder / name).glob("*.md")}
        if there != should:
            week.wrong.append(f"{name}: {sorted(there ^ should)} are in one of folder and index only")
        for file in sorted((week.folder / name).glob("extra*.md"))[:10]:
            text = file.read_text().splitlines()[-1]
            if not any(text in passage.text for passage in reader.search([text], k=3)[0]):
                week.wrong.append(f"{name}: {file.name} does not say what its page says")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=int, default=200)
    nights = parser.parse_args().nights
    with tempfile.TemporaryDirectory() as kept, pytest.MonkeyPatch.context() as patch:
        folder, deployments = Path(kept), []
        for name in INDEXES:
            write_facts(folder / name)
            config = {
                "name": name,
                "sources": [{"name": "docs", "location": str(folder / name)}],
                "golden": golden_for_facts(folder),
                "gate": {"min_queries": 10},
                "lock_minutes": 10,
            }
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
            deployments.append(
                {
                    "name": name,
                    "flow": "flows/reindex.py:reindex",
                    "config": str(folder / f"{name}.yaml"),
                    "cron": "* * * * *",
                    "retry_crashed": 1,
                }
            )
        with installed(folder, *deployments) as here:
            here.deployments.write_text(here.deployments.read_text() + "timezone: UTC\n")
            assert tandem(here.home, "up", here.deployments).returncode == 0
            use_home(here.home, patch)
            patch.setenv("MLFLOW_TRACKING_URI", here.address("mlflow"))
            week = Week(here, folder, connect(here.home))
            began = time.monotonic()
            faults, done = break_things(week), 0
            wait_for(lambda: len(week.ended()) >= len(INDEXES), 600)
            while (count := len(week.ended())) < nights or done < len(faults):
                print(f"{time.monotonic() - began:.0f} s: {count} nights", flush=True)
                week.edit()
                week.sample()
                if done < len(faults) and count >= (done + 1) * nights / (len(faults) + 1):
                    faults[done]()
                    week.look()
                    done += 1
                time.sleep(10)
            last = len(week.ended())
            wait_for(lambda: len(week.ended()) >= last + 2 * len(INDEXES), 600)  # two nights each without an edit
            doctor = tandem(here.home, "doctor")
            if doctor.returncode:
                week.wrong.append(f"doctor at the end: {doctor.stdout}")
            kinds = check_nights(week, week.ended())
            check_indexes(week)
            report(week, kinds, time.monotonic() - began)
    sys.exit(1 if week.wrong else 0)


def report(week: Week, kinds: Counter[str], seconds: float) -> None:
    third = max(1, len(week.samples) // 3)
    names = sorted({name for sample in week.samples for name in sample})

    def mean(samples: list[dict[str, float]], name: str) -> float:
        values = [sample[name] for sample in samples if name in sample]
        return sum(values) / max(1, len(values))

    rows = [[name, mean(week.samples[:third], name), mean(week.samples[-third:], name)] for name in names]
    result = {
        "nights": dict(kinds),
        "edits": dict(week.edits),
        "faults": week.faults,
        "wrong": week.wrong,
        "seconds": round(seconds),
        "use": rows,
    }
    faults = [[each["fault"], each["said"], each["over"], each["seconds"]] for each in week.faults]
    parts = [
        f"{sum(kinds.values())} nights of {len(INDEXES)} indexes in {seconds / 60:.0f} minutes, "
        f"{sum(week.edits.values())} edits; {len(week.wrong)} things said were not true.",
        table(["state", "nights"], sorted(kinds.items())),
        table(["fault", "said", "over", "seconds"], faults),
        table(["use", "first third", "last third"], rows),
        "\n".join(f"- {each}" for each in week.wrong),
    ]
    save("week", "A week in little", result, parts)


if __name__ == "__main__":
    main()
