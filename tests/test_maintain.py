"""Keeping house on real nights: what goes, what stays and still answers, and what a killed run leaves for the next."""

import pytest

from flows.maintain import maintain
from tasks.config.maintenance import MaintainConfig
from tasks.config.settings import Home
from tests.command import Tandem
from tests.homes import use_home


def test_smoke(home_of_nights: Home, tandem: Tandem, tmp_path) -> None:
    f = tmp_path / "m.yaml"
    f.write_text("depth: 1\ndays: 0\ncache_days: 0\n")
    for args in ([], ["--apply"], []):
        said = tandem("maintain", f, *args)
        print(said.status, said.out, said.err)
    print(tandem("doctor").out)
    assert 0
