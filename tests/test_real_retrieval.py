"""Retrieval on public questions, from files to scores: the whole path of a night, with the packaged model."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.config.settings import Home
from tasks.evaluation.golden import GoldenQuery
from tests.public_questions import measure, write_scifact, write_xquad
from tests.realdata import needs_real_data

pytestmark = [pytest.mark.realdata, needs_real_data, pytest.mark.timeout(900)]


def write_part_of_scifact(folder: Path) -> list[GoldenQuery]:
    """The whole of it takes minutes: `tests/benchmarks/fusion.py`."""
    return write_scifact(folder, claims=150, every=30)


def write_part_of_xquad(folder: Path) -> list[GoldenQuery]:
    return write_xquad(folder, articles=12)


@pytest.mark.parametrize("write", [write_part_of_scifact, write_part_of_xquad], ids=["scifact", "xquad"])
def test_hybrid_search_is_no_worse_than_the_better_of_vectors_and_full_text(
    home: Home, site: Path, write: Callable[[Path], list[GoldenQuery]]
) -> None:
    scores = measure(write(site), site, home, "auto", ("vector", "text", "hybrid"))
    assert scores["hybrid"].mean >= max(scores["vector"].mean, scores["text"].mean), scores


def test_half_precision_and_rounded_weights_lose_no_more_than_half_a_percent(home: Home, site: Path) -> None:
    queries = write_part_of_xquad(site)
    precisions = ("fp32", "bf16", "int8")
    scores = {name: measure(queries, site, home, name, ("vector",))["vector"].mean for name in precisions}
    assert min(scores["bf16"], scores["int8"]) >= 0.995 * scores["fp32"], scores
