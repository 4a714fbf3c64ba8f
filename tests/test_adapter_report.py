"""The report on an adapter: the table of contenders, whether it was worth it, the worst rows, the pictures."""

import io
import math
from typing import Any

import numpy as np
import pytest

from tasks.evaluation.adapter_report import (
    differences_table,
    plot_contenders,
    plot_losses,
    say_worth,
    scores_table,
    slices_table,
    worst_table,
)
from tasks.evaluation.scores import (
    BASE,
    BASE_WITH_EXAMPLES,
    CANDIDATE,
    CHAMPION,
    GENERAL_LOSS,
    MACRO_F1,
    PREFERENCE_MARGIN,
    make_score,
)

ROWS = [f"r{n}" for n in range(10)]


def right(count: int) -> list[float]:
    return [1.0] * count + [0.0] * (len(ROWS) - count)


def contenders(**values: list[float]) -> dict[str, Any]:
    """Exact match by contender; an underscore stands for a space."""
    return {who.replace("_", " "): {"exact_match": make_score("exact_match", ROWS, of)} for who, of in values.items()}


ALL = contenders(candidate=right(9), champion=right(10), base_with_examples=right(3), base=right(0))


def test_the_table_has_a_row_for_each_score_and_a_column_for_each_contender() -> None:
    loss = {who: {GENERAL_LOSS: make_score(GENERAL_LOSS, ["t"], [2.0 + n])} for n, who in enumerate((BASE, CANDIDATE))}
    both = {who: scores | loss.get(who, {}) for who, scores in ALL.items()}
    first, second = scores_table(both)
    assert list(first) == ["score", "rows", BASE, BASE_WITH_EXAMPLES, CHAMPION, CANDIDATE]
    assert (first["score"], first["rows"], first[CHAMPION]) == ("exact_match", "10", "1.000 (1.000 to 1.000)")
    assert first[CANDIDATE].startswith("0.900 (0.7")
    assert second == {
        "score": "general_loss (lower is better)",
        "rows": "1",
        BASE: "2.000 (2.000 to 2.000)",
        BASE_WITH_EXAMPLES: "",
        CHAMPION: "",
        CANDIDATE: "3.000 (3.000 to 3.000)",
    }


def test_the_candidate_is_set_beside_every_other_by_row() -> None:
    rows = differences_table(ALL)
    assert [row["beside"] for row in rows] == [BASE, BASE_WITH_EXAMPLES, CHAMPION]
    assert [row["difference"] for row in rows] == ["+0.900", "+0.600", "-0.100"]
    assert rows[0]["p"] == f"{2 / 2**9:.3f}"
    assert rows[2]["95% interval"] == "-0.300 to +0.000"


def test_a_tiny_p_value_is_not_called_zero() -> None:
    rows = [str(n) for n in range(30)]
    made = {who: {"overlap": make_score("overlap", rows, [n] * 30)} for who, n in ((BASE, 0.0), (CANDIDATE, 1.0))}
    assert differences_table(made)[0]["p"] == "below 0.001"


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (ALL, "Fine-tuning was worth it: it does better than the base with examples. exact_match 0.900, base with"),
        (
            contenders(candidate=right(5), base_with_examples=right(4), base=right(0)),
            "Fine-tuning was not shown to be worth it: it may do no better than the base with examples.",
        ),
        (
            contenders(candidate=right(1), base_with_examples=right(9), base=right(0)),
            "Fine-tuning was not worth it: the base with examples does better.",
        ),
        (contenders(candidate=right(8), base=right(0)), "Fine-tuning was worth it: it does better than the base. "),
        (contenders(candidate=right(8)), "Nothing tells whether fine-tuning was worth it"),
    ],
)
def test_a_sentence_tells_whether_fine_tuning_was_worth_it(made: Any, sentence: str) -> None:
    assert say_worth(made, "exact_match").startswith(sentence)


def test_slices_show_every_contender_on_the_rows_of_a_group() -> None:
    groups = {row: "refund" if n < 4 else "delivery" for n, row in enumerate(ROWS) if n != 5}
    rows = slices_table(ALL, "exact_match", groups | {"not scored": "other"})
    assert [(row["slice"], row["rows"]) for row in rows] == [("delivery", "5"), ("refund", "4")]
    assert rows[0][CANDIDATE] == "0.800"
    assert rows[1][BASE_WITH_EXAMPLES] == "0.750"
    assert rows[1]["interval of the candidate"] == "1.000 to 1.000"


def test_a_slice_of_macro_f1_shows_the_share_of_right_labels() -> None:
    score = make_score(MACRO_F1, ["a", "b", "c"], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0])
    rows = slices_table({CANDIDATE: {MACRO_F1: score}}, MACRO_F1, {"a": "north", "b": "north", "c": "south"})
    assert [row[CANDIDATE] for row in rows] == ["0.500", "0.000"]


def test_the_worst_rows_come_with_their_texts_and_those_that_the_champion_got_right_come_first() -> None:
    made = contenders(candidate=right(7), champion=[1.0] * 7 + [0.0, 1.0, 0.0], base=right(0))
    texts = {"reference": dict.fromkeys(ROWS, "yes"), "candidate": {"r8": "n" * 300}}
    rows = worst_table(made, "exact_match", texts)
    assert [row["row"] for row in rows] == ["r8", "r7", "r9"]
    assert rows[0] == {
        "row": "r8",
        "exact_match": "0.000",
        "that of the champion": "1.000",
        "reference": "yes",
        "candidate": "n" * 199 + "…",
    }
    assert rows[1]["candidate"] == ""


def test_the_worst_rows_of_a_loss_are_those_with_the_highest() -> None:
    score = make_score(GENERAL_LOSS, ROWS, [float(n) for n in range(10)])
    rows = worst_table({CANDIDATE: {GENERAL_LOSS: score}}, GENERAL_LOSS, {})
    assert rows[0] == {"row": "r9", "general_loss (lower is better)": "9.000"}


def test_the_worst_rows_by_macro_f1_are_those_with_a_wrong_label() -> None:
    score = make_score(MACRO_F1, ["a", "b", "c"], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0])
    assert [row["row"] for row in worst_table({CANDIDATE: {MACRO_F1: score}}, MACRO_F1, {})] == ["b", "c"]


def test_the_picture_has_a_bar_for_each_contender_and_its_own_axis_for_what_is_in_nats() -> None:
    more = {
        who: scores
        | {name: make_score(name, ROWS, np.linspace(1, 2, 10).tolist()) for name in (GENERAL_LOSS, PREFERENCE_MARGIN)}
        for who, scores in ALL.items()
        if who != BASE_WITH_EXAMPLES
    } | {BASE_WITH_EXAMPLES: ALL[BASE_WITH_EXAMPLES]}
    axes = plot_contenders(more).axes
    assert [len(each.patches) for each in axes] == [4, 3, 3]
    assert [each.get_ylabel() for each in axes[1:]] == ["nats a token (lower is better)", "nats"]
    assert {patch.get_height() for patch in axes[0].patches} == {0, 0.3, 1, 0.9}


def test_pictures_are_drawn_of_scores_and_losses_that_are_no_numbers() -> None:
    spoilt = contenders(candidate=[math.nan] * 10, base=right(0))
    for figure in (plot_contenders(spoilt), plot_losses([1, 2, 3], [2.0, math.nan, math.inf])):
        picture = io.BytesIO()
        figure.savefig(picture)
        assert picture.getvalue()


def test_the_loss_is_drawn_over_the_steps() -> None:
    line = plot_losses([10, 20], [2.5, 1.5]).axes[0].lines[0]
    assert line.get_xydata().tolist() == [[10, 2.5], [20, 1.5]]
