"""Keeping house on real nights: what goes, what stays and still answers, and what a killed run leaves for the next."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from flows.maintain import maintain
from tasks.config.maintenance import MaintainConfig
from tasks.config.settings import Home
from tasks.doctor import examine
from tasks.errors import RefusedError
from tasks.housekeeping import find_due, space
from tasks.index.cache import ContentCache, VectorCache
from tasks.index.store import IndexStore, has_table
from tasks.lock import model_lock
from tasks.mend import mend_all
from tasks.proof import prove
from tasks.records import Removal
from tasks.registry.checkpoints import keep_checkpoint, read_step
from tasks.registry.connection import connect
from tasks.registry.pointers import hold, keep, promote
from tasks.registry.runs import finish, read_text, start_run
from tasks.registry.traces import SpanRecord, TraceRecord, experiment_of, new_trace_id, write_traces
from tasks.registry.versions import list_versions, load_manifest
from tasks.retention import DAY
from tasks.serving import reader_of
from tests.command import Tandem
from tests.fakes import batch
from tests.homes import copy_home, environment_of, use_home
from tests.killed_night import die_at
from tests.nights import page
from tests.preloaded import run_preloaded
from tests.registry_fixtures import empty_home
from tests.released import add_index, add_release, two_releases

STRICT = MaintainConfig(depth=1, days=0, cache_days=0)
QUERIES = ["how hot is green tea steeped", "when does the ferry leave", "how heavy may a lorry be"]


def versions(home: Home, name: str = "docs") -> list[int]:
    return [version.number for version in list_versions(connect(home), name)]


def tags(home: Home) -> set[str]:
    manifest = load_manifest(connect(home), "docs", "champion")
    return set(IndexStore.open(manifest["uri"], manifest["table"]).tags())


def due(home: Home, config: MaintainConfig = STRICT, days_later: float = 0) -> dict[str, Removal]:
    """What would go at a later day, by kind."""
    found = [one.removal for one in find_due(config, home, time.time() + days_later * DAY)]
    return {removal.kind: removal for removal in found}


def clean(home: Home, config: MaintainConfig = STRICT, days_later: float = 0) -> None:
    for one in find_due(config, home, time.time() + days_later * DAY):
        one.act()


def test_a_dry_run_changes_nothing_and_names_what_the_real_one_removes(home_of_nights: Home, tandem: Tandem) -> None:
    first = connect(home_of_nights).get_model_version("docs", "1").run_id
    before = space(home_of_nights)["tables of indices"]
    planned = maintain(STRICT)
    assert (planned.applied, planned.decision, versions(home_of_nights)) == (False, "in order", [1, 2, 3])
    assert space(home_of_nights)["tables of indices"] == before

    done = maintain(STRICT.model_copy(update={"apply": True}))
    assert done.removals == planned.removals
    assert ("versions", "docs 1") in {(removal.kind, removal.what) for removal in done.removals}
    assert (versions(home_of_nights), tags(home_of_nights)) == ([2, 3], {"v2", "v3"})
    sizes = done.space["tables of indices"]
    assert before == sizes[0] > sizes[1] == space(home_of_nights)["tables of indices"]
    for number in (2, 3):
        prove(load_manifest(connect(home_of_nights), "docs", number))

    report = read_text(connect(home_of_nights), done.run_id, "report.md")
    assert "| versions | docs 1 | 1 | beyond 1 versions and 0 days |" in report
    assert "| tables of indices | " in report
    kept = connect(home_of_nights).list_artifacts(first)
    assert [file.path for file in kept] == ["report.md"]
    again = maintain(STRICT.model_copy(update={"apply": True}))
    assert (again.removals, again.decision) == ((), "in order")
    for command in (["promote", "docs", 1], ["rollback", "docs", "--to", 1]):
        refused = tandem(*command)
        assert (refused.status, refused.err) == (1, "tandem: docs has no version 1: it has 2, 3\n")


def test_the_command_is_a_dry_run_unless_told_otherwise(home_of_nights: Home, tandem: Tandem, tmp_path: Path) -> None:
    file = tmp_path / "maintain.yaml"
    file.write_text("depth: 1\ndays: 0\n")
    said = tandem("maintain", file)
    assert "versions: docs 1" in said.out
    assert "Nothing was changed" in said.out
    assert versions(home_of_nights) == [1, 2, 3]
    connect(home_of_nights).delete_registered_model_alias("docs", "previous")
    assert tandem("maintain", file, "--json").json["troubles"][0]["remedy"] == "tandem mend docs"
    done = tandem("maintain", file, "--apply", "--json")
    assert (done.status, done.json["decision"], done.json["troubles"]) == (0, "in order", [])
    assert any("previous was changed in MLflow itself" in sentence for sentence in done.json["mended"])
    assert versions(home_of_nights) == [3]


def test_nothing_of_a_model_goes_while_a_run_works_on_it(home_of_nights: Home) -> None:
    with model_lock(home_of_nights.locks, "docs", 0):
        done = maintain(STRICT.model_copy(update={"apply": True}))
    assert all("docs is being worked on by process" in removal.failed for removal in done.removals)
    assert versions(home_of_nights) == [1, 2, 3]


@pytest.mark.parametrize("protect", [hold, keep])
def test_a_version_that_is_kept_and_a_model_that_is_held_stay(
    home_of_nights: Home, protect: Callable[..., object]
) -> None:
    client = connect(home_of_nights)
    protect(client, "docs", *([1] if protect is keep else []), by="ann", reason="the auditors")
    assert "versions" not in due(home_of_nights)


@pytest.mark.parametrize("protect", [hold, keep])
def test_what_is_kept_or_held_while_the_maintenance_is_under_way_stays(
    home_of_nights: Home, protect: Callable[..., object]
) -> None:
    found = {each.removal.kind: each for each in find_due(STRICT, home_of_nights, time.time())}
    client = connect(home_of_nights)
    protect(client, "docs", *([1] if protect is keep else []), by="ann", reason="the auditors")
    with pytest.raises(RefusedError, match="the auditors"):
        found["versions"].act()
    assert versions(home_of_nights) == [1, 2, 3]


STORE, REGISTRY = "tasks.index.store:IndexStore", "mlflow.tracking._model_registry.client:ModelRegistryClient"
ARTIFACTS = "mlflow.store.artifact.local_artifact_repo:LocalArtifactRepository"


@pytest.mark.parametrize(
    ("point", "when", "left"),
    [
        (f"{REGISTRY}.delete_model_version", "before", [1, 2, 3]),
        (f"{REGISTRY}.delete_model_version", "after", [2, 3]),
        (f"{ARTIFACTS}.delete_artifacts", "after", [2, 3]),
        (f"{STORE}.untag", "after", [2, 3]),
        (f"{STORE}.collect", "after", [2, 3]),
    ],
    ids=lambda value: str(value).rpartition(".")[2],
)
def test_a_run_killed_at_any_step_leaves_nothing_pointing_at_what_is_gone_and_the_next_goes_on(
    home_of_nights: Home, tmp_path: Path, point: str, when: str, left: list[int]
) -> None:
    run_id = connect(home_of_nights).get_model_version("docs", "1").run_id
    errors = tmp_path / "errors"
    killed = run_preloaded(
        killed_maintenance, point, when, environment=environment_of(home_of_nights), errors=errors, timeout=200
    )
    assert killed == -signal.SIGKILL, errors.read_text()
    client = connect(home_of_nights)
    assert versions(home_of_nights) == left
    for number in left:
        prove(load_manifest(client, "docs", number))

    done = maintain(STRICT.model_copy(update={"apply": True}))
    assert done.decision == "in order"
    assert (versions(home_of_nights), tags(home_of_nights)) == ([2, 3], {"v2", "v3"})
    assert [file.path for file in client.list_artifacts(run_id)] == ["report.md"]
    assert examine(home_of_nights) == []
    assert due(home_of_nights) == {}
    statuses = [
        run.info.status for run in client.search_runs([client.get_experiment_by_name("maintenance").experiment_id])
    ]
    assert sorted(statuses) == ["FINISHED", "KILLED"]


def killed_maintenance(point: str, when: str) -> None:
    die_at(point, when, 1)
    maintain(STRICT.model_copy(update={"apply": True}))


def test_a_release_keeps_its_parts_and_they_go_in_one_run_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = use_home(copy_home(two_releases(), tmp_path / "home"), monkeypatch)
    shutil.copytree(two_releases().root.parent / "north", tmp_path / "north")
    shutil.copytree(two_releases().root.parent / "south", tmp_path / "south")
    add_release(home, tmp_path, 3)
    mend_all("desk", home)
    assert "versions" not in due(home)  # 2 is live, 1 was before, 3 is the newest; each has an index of its own
    connect(home).delete_registered_model_alias("desk", "previous")
    mend_all("desk", home)
    found = [one.removal.what for one in find_due(STRICT, home, time.time()) if one.removal.kind == "versions"]
    assert found == ["desk 1", "docs 1"]
    clean(home)
    assert (versions(home, "desk"), versions(home), versions(home, "answer")) == ([2, 3], [2, 3], [1, 2, 3])
    assert examine(home) == []


def test_a_dozen_nights_leave_what_is_kept_and_all_of_it_answers_as_on_its_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = use_home(copy_home(empty_home(), tmp_path / "home"), monkeypatch)
    client = connect(home)
    config = MaintainConfig(depth=3, days=0, cache_days=0)
    for source in ("north", "south"):
        for number in range(30):
            page(tmp_path / source, f"room-{number}", f"In room {number} of the {source} {number + 20} chairs stand.")
    answered, sizes = {}, []
    for night in range(1, 13):
        page(tmp_path / "north", "tea", f"Green tea is steeped at {40 + night} degrees for two minutes.")
        add_index(client, home, tmp_path)
        promote(client, "docs", night, by="night", reason="better", prove=lambda _: None)
        answered[night] = reader_of("docs", night, home).search(QUERIES, k=3)
        if night % 3 == 0:
            clean(home, config)
            sizes.append(space(home)["tables of indices"])
    assert versions(home) == [10, 11, 12]
    for night in versions(home):
        prove(load_manifest(client, "docs", night))
        assert reader_of("docs", night, home).search(QUERIES, k=3) == answered[night]
    assert f"{40 + 10} degrees" in answered[10][0][0].text
    assert max(sizes) < 1.2 * sizes[0]
    assert due(home, config) == {}
    with VectorCache(home.cache / "vectors", fingerprint(home), 384) as vectors:
        keys = {key for number in (10, 11, 12) for key in keys_of(number, home)}
        assert set(vectors.get(sorted(keys))) == keys
        assert ContentCache(home.cache / "vectors" / f"{fingerprint(home)}.sqlite").count_unused(keys, 1e12) == 0


def fingerprint(home: Home) -> str:
    return str(load_manifest(connect(home), "docs", "champion")["embedder_fingerprint"])


def keys_of(number: int, home: Home) -> set[str]:
    return set(reader_of("docs", number, home).store.rows(["embedding_key"])["embedding_key"].to_pylist())


def test_what_killed_runs_leave_goes_when_it_is_old(ready_home: Home) -> None:
    home, client = ready_home, connect(ready_home)
    for name in ("training/0123/job.json", "staging/docs-abc.arrow", "cache/adapters/tmpx/config.json"):
        file = home.data / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (home.cache / "adapters" / "support-v1").mkdir()
    with model_lock(home.locks, "support", 0):
        pass
    with VectorCache(home.cache / "vectors", "abc", 2) as vectors:
        vectors.add(["a", "b"], np.zeros((2, 2), dtype=np.float32))
    IndexStore.open_or_create(home.lancedb, "docs-abc", 2)
    run_id = start_run(client, "adapter-support", "a fine-tune", "support")
    checkpoint = home.root / "checkpoint-7"
    checkpoint.mkdir()
    (checkpoint / "weights").write_bytes(b"1234")
    keep_checkpoint(client, run_id, checkpoint, 7)
    whole = SpanRecord("answer", "CHAIN", 10**9 * int(time.time()), 10**9 * int(time.time()) + 1)
    write_traces(client, experiment_of(client, "answers-desk"), [TraceRecord(new_trace_id(), whole, (), {})])
    log = home.data / "logs" / "prefect.log"
    log.parent.mkdir()
    log.write_text("".join(f"line {number:06}\n" for number in range(1000)))

    config = MaintainConfig(log_mb=0.004)
    newer = pa.schema([pa.field("id", pa.int64())], metadata={"tandem.format": "99"})
    lancedb.connect(home.lancedb).create_table("newer-abc", schema=newer)
    assert set(due(home, config)) == {"copies of adapters", "bytes of logs"}
    finish(client, run_id, "FAILED")
    assert not {"tables", "vectors"} & set(due(home, config, days_later=100))  # it may need what nobody else does
    lancedb.connect(home.lancedb).drop_table("newer-abc")
    found = due(home, config, days_later=100)
    assert {kind: removal.count for kind, removal in found.items()} == {
        "tables": 1,
        "checkpoints": 1,
        "traces": 1,
        "vectors": 2,
        "copies of adapters": 1,
        "scratch": 1,
        "locks": 1,
        "bytes of logs": 10_000,
    }
    with log.open("ab") as appending:
        clean(home, config, days_later=100)
        appending.write(b"the next line\n")
    assert set(due(home, config, days_later=100)) == {"locks"}  # the one that was taken to remove the table
    left = {str(file.relative_to(home.data)) for file in home.data.rglob("*") if file.is_file()}
    assert {name for name in left if "sqlite" not in name} == {
        "locks/docs.holder",
        "locks/docs.lock",
        "logs/prefect.log",
    }
    assert log.read_text().endswith("line 000999\nthe next line\n")
    assert read_step(client, run_id) is None


def test_a_table_that_is_written_to_after_all_stays(ready_home: Home) -> None:
    table = IndexStore.open_or_create(ready_home.lancedb, "docs-abc", 64)
    (drop,) = [one for one in find_due(STRICT, ready_home, time.time()) if one.removal.kind == "tables"]
    table.replace([], [batch({"docs/owl.md": ["an owl"]})])
    with pytest.raises(RefusedError, match="the table docs-abc was written to meanwhile, so it was not removed"):
        drop.act()
    assert len(IndexStore.open(ready_home.lancedb, "docs-abc")) == 1
    clean(ready_home)
    assert not has_table(ready_home.lancedb, "docs-abc")


def test_a_run_that_has_begun_again_keeps_its_checkpoint(ready_home: Home) -> None:
    client = connect(ready_home)
    run_id = start_run(client, "adapter-support", "a fine-tune", "support")
    checkpoint = ready_home.root / "checkpoint-7"
    checkpoint.mkdir()
    (checkpoint / "weights").write_bytes(b"1234")
    keep_checkpoint(client, run_id, checkpoint, 7)
    assert due(ready_home, days_later=100) == {}


def test_a_cache_that_is_mostly_free_is_compacted(home_of_nights: Home) -> None:
    with ContentCache(home_of_nights.cache / "documents.sqlite") as texts:
        texts.put_many({str(number): os.urandom(1000) for number in range(2000)})
    done = maintain(STRICT.model_copy(update={"apply": True}))
    before, after = done.space["converted texts"]
    assert any("documents.sqlite was compacted" in sentence for sentence in done.mended)
    assert after < before - 2_000_000
