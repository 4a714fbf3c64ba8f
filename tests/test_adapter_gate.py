"""The gate of adapters: what never passes, what is held, and how well a gain and a loss are told from noise."""

import functools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.config.training import AdapterGateConfig
from tasks.evaluation.adapters import decide_adapter
from tasks.evaluation.gate import Promote
from tasks.evaluation.scores import (
    BASE,
    CANDIDATE,
    CHAMPION,
    GENERAL_ACCURACY,
    GENERAL_LOSS,
    HELD_OUT_LOSS,
    PREFERENCE_ACCURACY,
    Score,
    make_score,
)
from tasks.records import Verdict

Values = dict[str, Any]

ROWS = 100
GENERAL = {GENERAL_LOSS: np.linspace(1.5, 2.5, 60), GENERAL_ACCURACY: np.array([1.0, 1.0, 0.0] * 20)}


def right(share: float, rows: int = ROWS) -> np.ndarray:
    """The first rows of so many are right."""
    return (np.arange(rows) < round(share * rows)).astype(float)


def of(values: Values) -> dict[str, Score]:
    return {name: make_score(name, [f"r{n}" for n in range(len(of))], of) for name, of in values.items()}


AS_BEFORE = of(GENERAL)


def verdict(candidate: Values, base: Values, beside: Values | None = None, **changes: Any) -> Verdict:
    """What is not about the task stays as it was, where nothing else is said."""
    contenders = {CANDIDATE: AS_BEFORE | of(candidate), BASE: AS_BEFORE | of(base)}
    arguments: dict[str, Any] = {
        "gate": AdapterGateConfig(),
        "promote": "auto",
        "compared": "exact_match",
        "contenders": contenders | ({CHAMPION: of(beside)} if beside else {}),
        "champion": 3 if beside else None,
    }
    return decide_adapter(**arguments | changes)


GOOD = {"exact_match": right(0.9)}
BAD = {"exact_match": right(0.2)}


def test_a_first_adapter_that_beats_the_base_passes_and_says_why() -> None:
    found = verdict(GOOD, BAD)
    assert found.decision == "promote"
    assert found.reasons[0].startswith("exact_match 0.900 (95% interval 0.8")
    assert found.reasons[1].startswith("Better than the base model: exact_match 0.900, base 0.200; difference +0.700")
    assert "no champion" in found.reasons[2]
    assert found.reasons[3].startswith("No rise of cross-entropy on general text beyond noise: general_loss 2.000")
    assert found.reasons[4].endswith("p 1.000, 60 questions.")


def test_what_is_no_better_than_the_base_never_passes() -> None:
    found = verdict(BAD, BAD)
    assert found.decision == "reject"
    assert found.reasons[0].startswith("No better than the base model: exact_match 0.200, base 0.200")


def test_a_gain_over_the_base_that_may_be_noise_does_not_pass() -> None:
    found = verdict({"exact_match": right(0.25)}, BAD)  # 5 rows: p = 2/32
    assert found.decision == "reject"
    assert found.reasons[0].startswith("Better than the base model, but it may be noise")
    assert verdict({"exact_match": right(0.26)}, BAD).decision == "promote"  # 6 rows: p = 2/64


def test_a_loss_against_the_champion_that_is_no_noise_is_rejected_with_both_numbers() -> None:
    found = verdict(GOOD, BAD, {"exact_match": right(0.98)})
    assert found.decision == "reject"
    assert "A loss of more than 0.020 that is no noise: exact_match 0.900, champion (version 3)" in found.reasons[0]


def test_a_gain_over_the_champion_is_called_one_where_it_is_no_noise() -> None:
    assert verdict(GOOD, BAD, BAD).reasons[2].startswith("Better, and it is no noise: exact_match 0.900, champion")
    slightly = {"exact_match": right(0.89)}
    assert verdict(GOOD, BAD, slightly).reasons[2].startswith("No loss beyond noise: exact_match 0.900, champion")


def test_a_loss_against_the_champion_that_may_be_noise_is_for_a_person() -> None:
    found = verdict(GOOD, BAD, {"exact_match": right(0.94)})
    assert found.decision == "hold"
    assert "may be noise" in found.reasons[0]


def test_an_adapter_that_forgets_is_rejected_although_it_does_its_task() -> None:
    found = verdict(GOOD | {GENERAL_LOSS: GENERAL[GENERAL_LOSS] + 0.2}, BAD)
    assert found.decision == "reject"
    assert found.reasons[0].startswith(
        "A rise of cross-entropy on general text of more than 0.100 that is no noise: general_loss 2.200, base 2.000"
    )
    assert verdict(GOOD | {GENERAL_LOSS: GENERAL[GENERAL_LOSS] + 0.09}, BAD).decision == "promote"


def test_general_questions_lost_reject_or_ask_for_a_person() -> None:
    few, many = GENERAL[GENERAL_ACCURACY].copy(), GENERAL[GENERAL_ACCURACY].copy()
    few[:6], many[:15] = 0, 0  # 4 and 10 of 60 answers lost
    assert verdict(GOOD | {GENERAL_ACCURACY: few}, BAD).decision == "hold"
    found = verdict(GOOD | {GENERAL_ACCURACY: many}, BAD)
    assert found.decision == "reject"
    assert "A loss of accuracy on general questions of more than 0.050 that is no noise" in found.reasons[0]


def test_a_suite_lost_is_forgetting_too() -> None:
    suite = "suite: gsm8k"
    found = verdict(GOOD | {suite: right(0.3)}, BAD | {suite: right(0.6)})
    assert found.decision == "reject"
    assert "suite: gsm8k 0.300, base 0.600" in found.reasons[0]
    assert verdict(GOOD, BAD | {suite: right(0.6)}).decision == "hold"


def test_dpo_is_judged_by_preferences_and_sft_without_answers_by_the_held_out_loss() -> None:
    found = verdict({PREFERENCE_ACCURACY: right(0.8)}, {PREFERENCE_ACCURACY: right(0.5)}, compared=PREFERENCE_ACCURACY)
    assert found.decision == "promote"
    high, low = {HELD_OUT_LOSS: np.linspace(2, 3, ROWS)}, {HELD_OUT_LOSS: np.linspace(1, 2, ROWS)}
    assert verdict(low, high, compared=HELD_OUT_LOSS).decision == "promote"
    assert verdict(high, low, compared=HELD_OUT_LOSS).decision == "reject"
    found = verdict(high, {HELD_OUT_LOSS: np.linspace(3, 4, ROWS)}, low, compared=HELD_OUT_LOSS)
    assert found.decision == "reject"
    assert found.reasons[0].startswith("A loss of more than 0.020 that is no noise: held_out_loss 2.500, champion")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gate": AdapterGateConfig(min_rows=101)}, "100 held-out rows are too few to judge by; at least 101"),
        ({"gate": AdapterGateConfig(floors={"exact_match": 0.95})}, "exact_match 0.900 is below its floor of 0.950."),
        ({"gate": AdapterGateConfig(floors={GENERAL_LOSS: 1.9})}, "general_loss 2.000 is worse than its floor of 1.9"),
        ({"gate": AdapterGateConfig(floors={"schema_vaild": 0.1})}, "schema_vaild has a floor of 0.100 and was not"),
        ({"compared": "overlap"}, "There is no overlap of the adapter"),
        ({"contenders": {}}, "There is no exact_match of the adapter"),
        ({"contenders": {CANDIDATE: of({"exact_match": right(0, rows=0)})}}, "There is no exact_match of the adapter"),
    ],
)
def test_what_speaks_against_an_adapter_rejects_it_with_the_numbers(changes: dict[str, Any], reason: str) -> None:
    found = verdict(GOOD, BAD, **changes)
    assert found.decision == "reject"
    assert reason in found.reasons[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"held": "Ada rolled back to 2."}, "The model is held: Ada rolled back to 2."),
        ({"champion": 3}, "The champion, version 3, could not be scored"),
        ({"contenders": {CANDIDATE: AS_BEFORE | of(GOOD)}}, "The base model could not be scored"),
        (
            {"contenders": {CANDIDATE: of(GOOD), BASE: of(BAD)}},
            "general_loss was not scored for adapter and base, so nothing says how much the adapter forgets.",
        ),
    ],
)
def test_what_asks_for_a_person_holds_an_adapter(changes: dict[str, Any], reason: str) -> None:
    found = verdict(GOOD, BAD, **changes)
    assert found.decision == "hold"
    assert found.reasons[0].startswith(reason)


@pytest.mark.parametrize(
    ("promote", "reason"), [("ask", "waits as candidate for a person's approval"), ("never", "is only registered")]
)
def test_an_adapter_that_passes_and_may_not_go_live_at_once_says_so_first(promote: Promote, reason: str) -> None:
    found = verdict(GOOD, BAD, promote=promote)
    assert (found.decision, found.promote) == ("promote", promote)
    assert reason in found.reasons[0]


def test_the_gate_is_as_sure_as_it_is_told_to_be() -> None:
    candidate = {"exact_match": right(0.26)}  # p = 2/64 = 0.031
    assert verdict(candidate, BAD, gate=AdapterGateConfig(confidence=0.95)).decision == "promote"
    assert verdict(candidate, BAD, gate=AdapterGateConfig(confidence=0.97)).decision == "reject"


outcomes = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=50, max_size=70).map(np.array)


@settings(max_examples=25, deadline=None)
@given(outcomes)
def test_an_adapter_like_the_champion_is_never_stopped_for_loss(values: np.ndarray) -> None:
    found = verdict({"exact_match": values}, {"exact_match": values - 1}, {"exact_match": values})
    assert found.decision == "promote"


@settings(max_examples=25, deadline=None)
@given(outcomes, st.integers(0, 9), st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=9, max_size=9), st.data())
def test_the_order_of_rows_changes_no_verdict(
    values: np.ndarray, gained: int, moved: list[float], data: st.DataObject
) -> None:
    base, champion = values.copy(), values.copy()
    base[:gained] -= 1
    champion[-9:] += moved  # few changes: the p-value is exact
    order = data.draw(st.permutations(range(len(values))))
    before = verdict({"exact_match": values}, {"exact_match": base}, {"exact_match": champion})
    after = verdict({"exact_match": values[order]}, {"exact_match": base[order]}, {"exact_match": champion[order]})
    assert before.decision == after.decision


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_nan_anywhere_never_promotes(data: st.DataObject) -> None:
    candidate = GENERAL | {"exact_match": right(0.9), HELD_OUT_LOSS: np.ones(ROWS)}
    contenders = {
        CANDIDATE: candidate,
        BASE: GENERAL | {"exact_match": right(0.2)},
        CHAMPION: {"exact_match": right(0.9)},
    }
    who = data.draw(st.sampled_from(sorted(contenders)))
    name = data.draw(st.sampled_from(sorted(contenders[who])))
    values = contenders[who][name].copy()
    values[data.draw(st.integers(0, len(values) - 1))] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    spoilt = contenders | {who: contenders[who] | {name: values}}
    scores = {contender: of(each) for contender, each in spoilt.items()}
    assert verdict({}, {}, contenders=scores, champion=3).decision == "reject"


@functools.cache
def simulate(gain: float, loss: float, changed: float = 0.2, nights: int = 40, rows: int = 150) -> dict[str, float]:
    """Shares of decisions for an adapter better than its base, and worse than the champion, by so much on average.

    Answers are right or wrong; so many rows come out anew at random.
    """
    rng = np.random.default_rng(11)
    decisions = []
    for _ in range(nights):
        anew, champion = (rng.random(rows) < 0.7 for _ in range(2))
        candidate = np.where(rng.random(rows) < changed, anew, champion) & (rng.random(rows) > loss / 0.7)
        base = np.where(rng.random(rows) < changed, rng.random(rows) < 0.7, candidate)
        base = base & (rng.random(rows) > gain / 0.7)
        decisions.append(
            verdict(
                {"exact_match": candidate.astype(float)},
                {"exact_match": base.astype(float)},
                {"exact_match": champion.astype(float)},
            ).decision
        )
    return {name: decisions.count(name) / nights for name in ("promote", "hold", "reject")}


def test_an_adapter_that_does_nothing_for_the_task_passes_less_than_one_time_in_twenty() -> None:
    assert simulate(gain=0, loss=0)["promote"] < 0.05


def test_a_real_gain_passes_beside_a_champion_that_is_as_good() -> None:
    found = simulate(gain=0.3, loss=0)
    assert found["promote"] > 0.75
    assert found["reject"] < 0.05


def test_a_real_loss_against_the_champion_is_rejected() -> None:
    found = simulate(gain=0.3, loss=0.2)
    assert found["reject"] > 0.9
    assert found["promote"] < 0.02
