"""What answers: the live version, also where another one can no longer be opened."""

import dataclasses
import json
from pathlib import Path

import pytest

from tasks.config.index import EmbedderConfig
from tasks.config.settings import Home
from tasks.errors import StoreError
from tasks.index.embedding import embedder_fingerprint
from tasks.records import MANIFEST_FORMAT, IndexManifest
from tasks.registry.connection import connect
from tasks.registry.versions import load_manifest
from tasks.serving import live_index


def test_the_champion_answers_though_the_version_before_it_no_longer_opens(home_of_nights: Home) -> None:
    for path in home_of_nights.mlruns.glob("artifacts/**/manifest.json"):
        manifest = json.loads(path.read_text())
        if manifest["tag"] == "v2":
            path.write_text(json.dumps(manifest | {"lance_version": 999}))
    manifest, found = live_index("docs", home_of_nights).search(["how hot is green tea"], k=1)
    assert (manifest.tag, found[0][0].document) == ("v3", "docs/tea.md")


def test_a_manifest_of_a_newer_tandem_is_refused_and_one_that_only_says_more_is_read(home_of_nights: Home) -> None:
    values = load_manifest(connect(home_of_nights), "docs", "champion")
    assert dataclasses.asdict(IndexManifest.from_json(values | {"colour": "blue"})) == values
    with pytest.raises(StoreError, match=r"docs v3 was written by a newer Tandem \(format 2.*upgrade Tandem"):
        IndexManifest.from_json(values | {"format": MANIFEST_FORMAT + 1})


def test_a_process_that_may_not_write_knows_the_embedder_all_the_same(home: Home, tmp_path: Path) -> None:
    expected = embedder_fingerprint(EmbedderConfig(), home)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder of the caches would have to be")
    assert embedder_fingerprint(EmbedderConfig(), Home(blocked)) == expected
