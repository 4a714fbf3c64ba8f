"""What an older or a newer Tandem stored is read, or refused in a sentence that says what to do."""

import json
import logging
import time
import zlib
from collections.abc import Iterator
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tasks.answering.grounding import Grounding
from tasks.config.answering import PolicyConfig
from tasks.config.index import EmbedderConfig, SearchConfig
from tasks.config.maintenance import MaintainConfig
from tasks.config.services import Service, read_services, services_file
from tasks.config.settings import Home
from tasks.config.stored import base_of, embedder_of, policy_of, read_stored, search_of
from tasks.config.training import BaseModelConfig
from tasks.converted import load_parsed, open_converted
from tasks.doctor import examine, find_parts
from tasks.errors import StoreError
from tasks.housekeeping import take_stock
from tasks.records import (
    AdapterManifest,
    IndexManifest,
    ParsedDocument,
    ReleaseManifest,
    Verdict,
    kind_of,
    known_fields,
    manifest_fields,
)
from tasks.register import VERDICT_FILE, read_verdict
from tasks.registry.connection import connect
from tasks.registry.ledger import Pointers, entries
from tasks.registry.versions import get, load_manifest

FIRST: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "first_manifests.json").read_text())
"""By kind: a manifest as the first Tandem wrote it that had this kind."""
MANIFESTS: dict[str, Any] = {"index": IndexManifest, "adapter": AdapterManifest, "release": ReleaseManifest}
STORED = [*MANIFESTS.values(), Grounding, ParsedDocument, Pointers, Service, Verdict]
CONFIGS: list[type[BaseModel]] = [PolicyConfig, EmbedderConfig, SearchConfig, BaseModelConfig]


def full(record: type[Any]) -> dict[str, Any]:
    """A value for every field that has no default."""
    return {field.name: f"its {field.name}" for field in fields(record) if not _has_default(field)}


def _has_default(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _by_default(default: bool) -> Iterator[Any]:
    for record in STORED:
        for field in fields(record):
            if _has_default(field) is default:
                yield pytest.param(record, field.name, id=f"{record.__name__}.{field.name}")


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_of_the_first_format_is_read(kind: str) -> None:
    manifest = MANIFESTS[kind].from_json(FIRST[kind])
    assert asdict(manifest).items() >= FIRST[kind].items()
    assert manifest_fields(FIRST[kind]) == FIRST[kind]


def test_the_configurations_in_manifests_of_the_first_format_are_read() -> None:
    index, adapter = IndexManifest.from_json(FIRST["index"]), AdapterManifest.from_json(FIRST["adapter"])
    release = ReleaseManifest.from_json(FIRST["release"])
    assert release.alone_from is None
    assert policy_of(release).conflicts
    assert Grounding.from_json(release.grounding) == Grounding()
    assert embedder_of(index).model_dump(mode="json").items() >= index.embedder.items()
    assert search_of(index).model_dump(mode="json").items() >= index.search.items()
    assert base_of(adapter) == BaseModelConfig(model="org/base")


@pytest.mark.parametrize(("record", "name"), _by_default(True))
def test_a_field_that_was_not_stored_yet_has_its_default(record: Any, name: str) -> None:
    whole_record = record(**full(record))
    older = {key: value for key, value in asdict(whole_record).items() if key != name}
    assert record(**known_fields(record, older, "the record")) == whole_record


@pytest.mark.parametrize(("record", "name"), _by_default(False))
def test_a_field_that_is_gone_is_named(record: Any, name: str) -> None:
    damaged = {key: value for key, value in full(record).items() if key != name}
    with pytest.raises(StoreError, match=f"^the record lacks {name}, which every Tandem has written: .*restore it"):
        known_fields(record, damaged, "the record")


@pytest.mark.parametrize("kind", MANIFESTS)
@pytest.mark.parametrize("name", ["tag", "format", "fingerprint", "base_hash", "policy"])
def test_a_manifest_without_a_field_is_no_traceback(kind: str, name: str) -> None:
    damaged = {key: value for key, value in FIRST[kind].items() if key != name}
    if name == "format" or name not in FIRST[kind]:
        assert MANIFESTS[kind].from_json(damaged) == MANIFESTS[kind].from_json(FIRST[kind])
        return
    for read in (MANIFESTS[kind].from_json, manifest_fields):
        with pytest.raises(StoreError, match=f"^the manifest of {FIRST[kind][kind]} .* lacks {name}, "):
            read(damaged)


def test_a_manifest_of_no_known_kind_is_no_traceback() -> None:
    with pytest.raises(StoreError, match=r"names none of release, index.*restore it, or upgrade Tandem"):
        kind_of({"tag": "v1", "format": 1})


def test_what_a_newer_tandem_says_besides_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read = ReleaseManifest.from_json(FIRST["release"] | {"colour": "blue"})
    assert read == ReleaseManifest.from_json(FIRST["release"])
    assert "the manifest of helpdesk v1 has fields of a newer Tandem, which are left out: colour" in caplog.text


@pytest.mark.parametrize("model", CONFIGS)
def test_a_setting_that_was_not_stored_yet_has_its_default(model: type[BaseModel]) -> None:
    given = {"model": "org/base"} if model is BaseModelConfig else {}
    expected = model.model_validate(given)
    stored = expected.model_dump(mode="json")
    assert read_stored(stored, model, "it") == expected
    for name in stored.keys() - given.keys():
        assert read_stored({key: value for key, value in stored.items() if key != name}, model, "it") == expected
    assert read_stored(given, model, "it") == expected


def test_settings_of_a_newer_tandem_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    policy: dict[str, Any] = {"something_new": 1, "passages": 7, "generator": {"sentences": 3, "tone": "kind"}}
    before = json.dumps(policy)
    with caplog.at_level(logging.WARNING):
        read = policy_of(ReleaseManifest.from_json(FIRST["release"] | {"policy": policy}))
    assert (read.passages, read.generator.sentences) == (7, 3)
    assert "the policy of helpdesk v1 has settings of a newer Tandem" in caplog.text
    assert "something_new" in caplog.text
    assert "generator.tone" in caplog.text
    assert json.dumps(policy) == before


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"generator": {"kind": "choir"}, "something_new": 1}, r"generator\.kind: Input should be 'extractive'"),
        ({"routing": {"alone": True, "new": 1}}, "as a whole: .*the generator is extractive"),
    ],
)
def test_a_setting_that_this_tandem_cannot_follow_is_refused_by_name(policy: dict[str, Any], said: str) -> None:
    release = ReleaseManifest.from_json(FIRST["release"] | {"policy": policy})
    with pytest.raises(StoreError, match=f"the policy of helpdesk v1 cannot be read .{said}.*upgrade Tandem"):
        policy_of(release)


def test_services_of_another_tandem_are_read(home: Home) -> None:
    stored = {"name": "mlflow", "pid": 7, "started": 1.5}
    services_file(home).parent.mkdir(parents=True, exist_ok=True)
    services_file(home).write_text(json.dumps([stored, stored | {"name": "prefect", "port": 9, "colour": "blue"}]))
    assert read_services(home) == {"mlflow": Service("mlflow", 7, 1.5), "prefect": Service("prefect", 7, 1.5, 9)}
    services_file(home).write_text(json.dumps([{"name": "mlflow"}]))
    assert read_services(home) == {}
    assert services_file(home).with_suffix(".unreadable").exists()


def test_texts_kept_by_another_tandem_are_read(home: Home) -> None:
    with open_converted(home) as texts:
        kept = {"older": {"text": "Sleep."}, "newer": {"text": "Sleep.", "title": "Leave", "colour": "blue"}}
        texts.put_many({key: zlib.compress(json.dumps(value).encode()) for key, value in kept.items()})
        assert load_parsed(texts, ["older", "newer"]) == {
            "older": ParsedDocument("Sleep."),
            "newer": ParsedDocument("Sleep.", "Leave"),
        }


def test_the_ledger_and_verdicts_of_another_tandem_are_read(home_of_nights: Home) -> None:
    client = connect(home_of_nights)
    version = get(client, "docs", "champion")
    verdict = read_verdict(client, version)
    (path,) = home_of_nights.mlruns.glob(f"artifacts/**/{version.run_id}/**/{VERDICT_FILE}")
    stored = json.loads(path.read_text())
    del stored["promote"]
    path.write_text(json.dumps(stored | {"colour": "blue"}))
    assert read_verdict(client, version) == verdict

    newest = next(entries(client, "docs"))
    after = json.dumps(asdict(newest.after) | {"shadow": 3})
    client.set_tag(newest.run_id, "after", after)
    client.set_tag(newest.run_id, "before", "{}")
    assert next(entries(client, "docs")) == replace(newest, before=Pointers())


def test_maintenance_and_doctor_go_on_beside_a_damaged_manifest(home_of_nights: Home) -> None:
    for path in home_of_nights.mlruns.glob("artifacts/**/manifest.json"):
        manifest = json.loads(path.read_text())
        if manifest["tag"] == "v2":
            del manifest["lance_version"]
            path.write_text(json.dumps(manifest))
    client = connect(home_of_nights)
    with pytest.raises(StoreError, match="the manifest of docs v2 lacks lance_version, "):
        find_parts(client, "docs", load_manifest(client, "docs", 2))
    stock = take_stock(MaintainConfig(), home_of_nights, time.time())
    assert not stock.whole
    troubles = "\n".join(trouble.what for trouble in examine(home_of_nights))
    assert "docs: version 2" in troubles
    assert "lacks lance_version" in troubles
