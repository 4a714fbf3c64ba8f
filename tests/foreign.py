"""What another team keeps on the same MLflow server, and whether anything of it was touched."""

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY, PROMPT_TEXT_TAG_KEY

from tasks.config.settings import Home
from tasks.registry.connection import registry
from tasks.registry.traces import SpanRecord, TraceRecord, new_trace_id, write_traces

MODEL = "churn"
LONG_AGO = int((time.time() - 100 * 86_400) * 1000)
MARKS = ("tandem.kind", "tandem.name", "tandem.experiment", "tandem.marked")
Row = tuple[str, tuple[object, ...]]


@dataclass(frozen=True)
class Others:
    """What is theirs, in their database and on their disk."""

    home: Home
    rows: frozenset[Row]
    files: dict[Path, bytes]

    def touched(self) -> list[Row]:
        """Rows of theirs that are gone or changed, and new ones that are about anything of theirs."""
        now = dump(self.home)
        ids = {str(row[1][0]) for row in self.rows if row[0] in ("runs", "registered_models", "trace_info")}
        new = [row for row in now - self.rows if ids & {str(value) for value in row[1]}]
        assert self.files == files_of(self.home)
        return [*(self.rows - now), *new]


def dump(home: Home) -> frozenset[Row]:
    """Every row of MLflow's database."""
    with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return frozenset((table, row) for table in tables for row in database.execute(f"SELECT * FROM {table}"))


def files_of(home: Home) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in (home.root / "theirs").rglob("*") if file.is_file()}


def add_others(home: Home, experiment: str = "churn-team") -> Others:
    """Models, aliases, runs, one of them at work, a prompt, a trace and an experiment, all of long ago."""
    uri = f"sqlite:///{home.mlruns / 'mlflow.db'}"
    client, before = MlflowClient(uri, uri), dump(home)
    place = client.create_experiment(experiment, artifact_location=(home.root / "theirs").as_uri())
    client.create_registered_model(MODEL, tags={"team": "churn"})
    for _ in range(3):
        run = client.create_run(place, tags={"prefect.flow_run_id": "3f0a"})
        client.log_text(run.info.run_id, "weights", "model/weights.txt")
        client.log_text(run.info.run_id, '{"features": 7}', "model/artifacts/manifest.json")
        client.create_model_version(MODEL, f"{run.info.artifact_uri}/model", run.info.run_id)
        client.set_terminated(run.info.run_id)
    client.set_registered_model_alias(MODEL, "champion", "2")
    client.create_run(place, tags={"prefect.flow_run_id": "3f0b"}, run_name="still training elsewhere")
    prompt = {IS_PROMPT_TAG_KEY: "true", PROMPT_TEXT_TAG_KEY: "Answer {{ question }}"}
    registry(client).create_registered_model("their-prompt", tags=prompt)
    registry(client).create_model_version("their-prompt", "nowhere", tags=prompt)
    write_traces(
        client, place, [TraceRecord(new_trace_id(), SpanRecord("answer", "CHAIN", 1, 2, {"question": "?"}), [], {})]
    )
    _make_old(home, place)
    return Others(home, dump(home) - before, files_of(home))


def _make_old(home: Home, place: str) -> None:
    with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database, database:
        database.execute("UPDATE model_versions SET creation_time = ? WHERE name = ?", (LONG_AGO, MODEL))
        database.execute("UPDATE trace_info SET timestamp_ms = ? WHERE experiment_id = ?", (LONG_AGO, place))
        database.execute("UPDATE runs SET start_time = ? WHERE experiment_id = ?", (LONG_AGO, place))


def without_marks(home: Home) -> None:
    """As a Tandem left it that knew no marks."""
    with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database, database:
        for table in ("experiment_tags", "registered_model_tags", "model_version_tags"):
            database.execute(f"DELETE FROM {table} WHERE key IN (?, ?, ?, ?)", MARKS)


def marks(home: Home) -> set[tuple[str, str, str]]:
    """Every mark there is: of what, which one, and what it says."""
    tables = ("experiment_tags", "registered_model_tags", "model_version_tags")
    found = set()
    with closing(sqlite3.connect(home.mlruns / "mlflow.db")) as database:
        for table in tables:
            owner = "experiment_id" if table == "experiment_tags" else "name"
            query = f"SELECT {owner}, key, value FROM {table} WHERE key IN (?, ?, ?, ?)"
            found |= {(str(of), key, value) for of, key, value in database.execute(query, MARKS)}
    return found
