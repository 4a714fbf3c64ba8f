"""Prompts: what is filled in where, and which ones are refused."""

import pytest

from tasks.answering.prompting import check_turns, fill
from tasks.errors import ConfigError
from tests.passages import passage

ASKED = "what is {{ passages }}"


def test_the_question_and_the_numbered_passages_stand_in_their_places() -> None:
    turns = [{"role": "system", "content": "From:\n{{ passages }}"}, {"role": "user", "content": "{{question}}?"}]
    found = [passage("Hot tea.", title="Tea", heading=("Tea", "Green"), date="2026-01-05"), passage("Cold tea.")]
    assert fill(turns, "how hot", found) == [
        {"role": "system", "content": "From:\n[1] Tea › Green (2026-01-05)\nHot tea.\n\n[2] docs/page.md\nCold tea."},
        {"role": "user", "content": "how hot?"},
    ]


def test_what_is_filled_in_is_never_read_as_a_variable() -> None:
    turns = [{"role": "system", "content": "{{ passages }}"}, {"role": "user", "content": "{{ question }}"}]
    filled = fill(turns, ASKED, [passage("The word {{ question }} stands here.")])
    assert filled[0]["content"].endswith("The word {{ question }} stands here.")
    assert filled[1]["content"] == ASKED


def test_a_prompt_without_a_turn_of_the_user_gets_the_question_as_one() -> None:
    assert fill([{"role": "system", "content": "{{ passages }}"}], "why", [])[-1] == {"role": "user", "content": "why"}


@pytest.mark.parametrize(
    ("content", "message"),
    [("{{ passages }} {{ tenant }}", "names tenant: known are"), ("Just answer.", "does not name the passages")],
)
def test_a_prompt_that_cannot_be_filled_in_is_refused(content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_turns([{"role": "system", "content": content}])
