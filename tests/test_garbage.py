"""Collecting old versions, while nobody else may write."""

from typing import Any

import pytest

from tasks.config.settings import Home
from tasks.errors import BusyError
from tasks.garbage import collect_versions
from tasks.index.store import IndexStore
from tasks.lock import model_lock
from tasks.registry.connection import connect
from tasks.registry.versions import load_manifest


def tags(home: Home) -> set[str]:
    manifest = load_manifest(connect(home), "docs", "champion")
    return set(IndexStore.open(manifest["uri"], manifest["table"]).tags())


def test_the_table_is_pruned_while_no_night_can_begin(home_of_nights: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    prune = IndexStore.collect

    def watched(store: IndexStore, keep: Any) -> int:
        with pytest.raises(BusyError), model_lock(home_of_nights.locks, "docs", 0):
            pass
        return prune(store, keep)

    monkeypatch.setattr(IndexStore, "collect", watched)
    assert collect_versions("docs", 1, False, home_of_nights)["deleted"] == [1]
    assert tags(home_of_nights) == {"v2", "v3"}


def test_what_an_interrupted_collection_left_in_the_table_goes_with_the_next(
    home_of_nights: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(IndexStore, "collect", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            collect_versions("docs", 1, False, home_of_nights)
    assert tags(home_of_nights) == {"v1", "v2", "v3"}
    again = collect_versions("docs", 1, False, home_of_nights)
    assert again["deleted"] == []
    assert again["freed_bytes"] > 0
    assert tags(home_of_nights) == {"v2", "v3"}
