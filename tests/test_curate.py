"""Learning from use: from thumbs and corrections on real traces to approved rows, data sets, and a fine-tune."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.config.curation import CurateConfig
from tasks.config.settings import Home
from tasks.evaluation.golden import load_golden
from tasks.records import Draft
from tasks.registry.connection import connect
from tasks.registry.datasets import find_dataset
from tasks.registry.runs import log_table, read_text, start_run, finish
from tasks.registry.traces import assess
from tasks.releases import open_release
from tasks.review import Desk
from tests.command import Said, Tandem
from tests.homes import copy_home, use_home
from tests.registry_fixtures import empty_home
from tests.released import NAME, QUESTION, record, two_releases

LORRY = "how heavy may a lorry on the old bridge be"
FERRY = "when leaves the ferry to the island"
BOOKS = "for how long are books lent here"


@pytest.fixture(scope="module")
def asked(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the releases of `desk`, and four traces with feedback that hold their answers."""
    home = copy_home(two_releases(), tmp_path_factory.mktemp("curate") / "home")
    with pytest.MonkeyPatch.context() as patch:
        use_home(home, patch)
        client, assistant = connect(home), open_release(NAME, 2, home)
        ids = record(client, assistant, [(each, "north") for each in (QUESTION, LORRY, FERRY, BOOKS)], "answers")
        assess(client, ids[0], by="ann", correction="Steep green tea at eighty degrees, for two minutes.")
        assess(client, ids[1], by="ann", thumb=True)
        assess(client, ids[2], by="bob", thumb=False)
        assess(client, ids[3], by="bob", thumb=True, correction="Ask ben.hale@harbour.org, who lends books.")
    return home


@pytest.fixture
def desk(asked: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return use_home(copy_home(asked, tmp_path / "home"), monkeypatch)


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "desk.yaml"
    path.write_text(yaml.safe_dump({"name": "desk", "release": "desk", "held_out_share": 0} | changes))
    return path


def test_x(desk: Home, tmp_path: Path, tandem: Tandem) -> None:
    said = tandem("curate", write(tmp_path))
    print(said.out, said.err)
    print((desk.data / "curation/desk/review.yaml").read_text())
    text = (desk.data / "curation/desk/review.yaml").read_text().replace("approved:", "approved: true")
    (desk.data / "curation/desk/review.yaml").write_text(text)
    said = tandem("curate", write(tmp_path))
    print(said.out, said.err)
    print((desk.data / "curation/desk/review.yaml").read_text())
    assert 0
