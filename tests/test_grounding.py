"""Whether the passages answer a question, and when to refuse."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answering.grounding import Calibrated, Example, Grounding, calibrate
from tasks.config.settings import Home
from tasks.errors import ConfigError
from tests.passages import passage
from tests.realdata import needs_real_data

TEA = passage("Green tea is steeped for two minutes.", similarity=0.8)
ONE_OF_EACH = Grounding(intercept=-2, similarity=1, passage=1, sentence=1, usual_similarity=0.4)


def examples(count: int, unsure: int = 0) -> list[Example]:
    """So many answerable questions, whose passage is near, and as many that it does not answer; `unsure` look wrong."""
    near, far = passage("Tea is hot.", similarity=0.9), passage("Rain falls.", similarity=0.1)
    sides = [(True, near)] * (count - unsure) + [(True, far)] * unsure + [(False, far)] * count
    return [Example(f"is tea hot {number}", [found], answerable) for number, (answerable, found) in enumerate(sides)]


def test_the_probability_is_the_logistic_function_of_similarity_and_coverage() -> None:
    # All of the question is covered: 0.8 + 1 + 1 - 2 = 0.8, and 1 / (1 + e^-0.8) = 0.690.
    assert ONE_OF_EACH.probability("green tea minutes", [TEA]) == pytest.approx(0.690, abs=5e-4)


def test_without_vectors_the_usual_similarity_stands_in() -> None:
    # 0.4 + 1 + 1 - 2 = 0.4, and 1 / (1 + e^-0.4) = 0.599.
    assert ONE_OF_EACH.probability("green tea", [passage(TEA.text)]) == pytest.approx(0.599, abs=5e-4)


def test_nothing_found_answers_nothing() -> None:
    assert Grounding().probability("green tea", []) == 0


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_nearer_passage_is_never_less_likely_to_answer(one: float, other: float) -> None:
    near, far = (passage(TEA.text, similarity=value) for value in (max(one, other), min(one, other)))
    assert Grounding().probability("tea", [near]) >= Grounding().probability("tea", [far])


def test_the_default_tells_an_answer_from_a_passage_about_something_else() -> None:
    threshold = Grounding().threshold
    assert Grounding().probability("how long is green tea steeped", [TEA]) > threshold
    assert Grounding().probability("who built the old bridge", [passage(TEA.text, similarity=0.1)]) < threshold


def test_a_grounding_survives_json() -> None:
    grounding = calibrate(examples(10), 0.5).grounding
    assert Grounding.from_json(json.loads(json.dumps(grounding.to_json()))) == grounding


def test_kinds_that_are_far_apart_are_told_apart() -> None:
    found = calibrate(examples(30), 0.8)
    assert (found.examples, found.unanswerable, found.refused, found.rightly) == (60, 30, 30, 30)
    assert (found.precision, found.recall) == (1, 1)


def test_the_more_precise_refusals_must_be_the_fewer_there_are() -> None:
    # The nearer, the more often answerable: of every forty questions with similarity n/10, four times n.
    graded = [
        Example(f"is tea hot {place} {number}", [passage("Tea is hot.", similarity=place / 10)], number < 4 * place)
        for place in range(11)
        for number in range(40)
    ]
    found = [calibrate(graded, precision) for precision in (0.55, 0.65, 0.75)]
    assert found[0].refused > found[1].refused > found[2].refused > 0
    assert found[0].recall > found[1].recall > found[2].recall
    assert found[0].precision < found[1].precision < found[2].precision


def test_a_question_may_be_asked_with_its_documents_and_without() -> None:
    ways = [(True, passage("Tea is hot.", similarity=0.9)), (False, passage("Rain falls.", similarity=0.1))]
    asked = [Example(f"is tea hot {number}", [found], answerable) for number in range(10) for answerable, found in ways]
    assert calibrate(asked, 0.8).recall == 1


def test_a_question_for_which_nothing_is_found_is_refused() -> None:
    found = calibrate([*examples(30), Example("whales", [], False)], 0.8)
    assert (found.refused, found.rightly) == (31, 31)


def test_too_few_questions_of_one_kind_are_an_error() -> None:
    with pytest.raises(ConfigError, match="needs 5 unanswerable questions, and there are 4"):
        calibrate(examples(5)[:-1], 0.8)


def test_the_figures_are_said_in_a_sentence() -> None:
    calibrated = Calibrated(Grounding(threshold=0.4), examples=100, unanswerable=50, refused=50, rightly=45)
    assert calibrated.sentence == (
        "Cross-validated on 100 questions, 50 of them unanswerable: 50 refused, 45 of them rightly "
        "(precision 0.900, recall 0.900). It refuses below a probability of 0.400."
    )


@pytest.mark.realdata
@needs_real_data
@pytest.mark.timeout(900)
def test_real_questions_are_answered_from_the_right_passage_and_refused_where_it_is_missing(
    home: Home, site: Path
) -> None:
    from tests.unanswerable import measure, search, write_half_of_xquad

    asked = write_half_of_xquad(site, seed=1, articles=16)
    _, found = measure(asked, search(asked, site, home), seed=1)
    assert found["first citation holds the answer"] >= 0.9, found
    assert found["refusal precision"] >= 0.75, found
    assert found["refusal recall"] >= 0.8, found
    assert found["p95 ms"] < 100, found
