"""Rows of every shape become the same examples, and rows that cannot say so in a sentence."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from tasks.config.loading import parse_config
from tasks.config.training import DatasetConfig
from tasks.errors import ConfigError
from tasks.training.formats import Example, read_examples
from tasks.training.rows import BadRow, Row


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def convert(values: dict[str, Any], format: str, **options: Any) -> Example | BadRow:
    dataset = DatasetConfig.model_validate({"format": format, "sources": ["x"], **options})
    return next(read_examples([Row("x:1", values)], dataset))


def parts(values: dict[str, Any], format: str, **options: Any) -> Any:
    found = convert(values, format, **options)
    assert isinstance(found, Example), found
    return found.parts


def reason(values: dict[str, Any], format: str, **options: Any) -> str:
    found = convert(values, format, **options)
    assert isinstance(found, BadRow), found
    assert found.place == "x:1"
    return found.reason


TALK = [system("Be kind."), user("Hi"), assistant("Hello"), user("Bye"), assistant("See you")]


def test_messages_are_taken_as_a_list_or_as_json() -> None:
    assert parts({"messages": TALK}, "messages") == {"messages": TALK}
    text = '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "name": "Eve"}]'
    assert parts({"talk": text}, "messages", columns={"messages": "talk"}) == {"messages": TALK[1:3]}


def test_a_prompt_and_its_completion_are_texts_or_turns() -> None:
    assert parts({"prompt": "Hi", "completion": "Hello"}, "prompt_completion") == {"messages": TALK[1:3]}
    assert parts({"prompt": TALK[:4], "completion": TALK[4:]}, "prompt_completion") == {"messages": TALK}


def test_a_template_writes_json_as_it_is_and_reaches_columns_of_any_name() -> None:
    columns = {"prompt": "{{ row['Customer text'] }}", "completion": '{"intent": {{ intent | tojson }}}\n'}
    values = {"Customer text": "Où est-il ?", "intent": "it's <né>"}
    assert parts(values, "prompt_completion", columns=columns) == {
        "messages": [user("Où est-il ?"), assistant('{"intent": "it\'s <né>"}\n')]
    }


def test_an_empty_thought_is_no_part_of_an_answer() -> None:
    empty, thought = "<think>\n\n</think>\n\n", "<think>\nHow?\n</think>\n\n"
    found = parts({"messages": [user(empty), assistant(f"{empty}a")]}, "messages")
    assert found == {"messages": [user(empty), assistant("a")]}
    found = parts({"prompt": "q", "chosen": f"{empty}a", "rejected": f"{thought}a"}, "preference")
    assert found == {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant(f"{thought}a")]}


def test_the_systems_turn_is_added_where_there_is_none() -> None:
    assert parts({"messages": TALK[1:3]}, "messages", system="Be brief.")["messages"][0] == system("Be brief.")
    assert parts({"messages": TALK}, "messages", system="Be brief.") == {"messages": TALK}


def test_a_preference_has_a_prompt_or_two_answers_that_begin_with_one() -> None:
    expected = {"prompt": [user("Hi")], "chosen": [assistant("Hello")], "rejected": [assistant("Go")]}
    assert parts({"prompt": "Hi", "chosen": "Hello", "rejected": "Go"}, "preference") == expected
    lists = {"chosen": [user("Hi"), assistant("Hello")], "rejected": [user("Hi"), assistant("Go")]}
    assert parts(lists, "preference") == expected
    assert parts(lists, "preference", system="Be kind.")["prompt"] == [system("Be kind."), user("Hi")]


def test_transcripts_become_turns() -> None:
    chosen = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: See\n\nyou"
    found = parts({"chosen": chosen, "rejected": chosen[:-8] + "Go"}, "preference", converter="transcript")
    assert found == {"prompt": TALK[1:4], "chosen": [assistant("See\n\nyou")], "rejected": [assistant("Go")]}
    asked = {"prompt": "\n\nHuman: Hi\n\nAssistant:", "completion": "Hello"}
    assert parts(asked, "prompt_completion", converter="transcript") == {"messages": TALK[1:3]}


SHARED = "has no prompt that `chosen` and `rejected` share"
ORDER = "has turns in which user and assistant do not take turns, beginning with the user"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("a"), user("b"), assistant("c")], ORDER),
        ([assistant("a"), user("b"), assistant("c")], ORDER),
        ([user("a")], "does not end with a turn of the assistant"),
        ([system("a")], "does not end with a turn of the assistant"),
        ([user("a"), assistant(" \n")], "has an empty turn"),
        ([system(""), user("a"), assistant("b")], "has an empty turn"),
        ([user("a"), system("b"), assistant("c")], "has a turn of system, where only user and assistant may speak"),
        ([user("a"), {"role": "tool", "content": "b"}], "has a turn of tool, where only user and assistant may speak"),
        ([{"content": "a"}], "has a turn of None, where only user and assistant may speak"),
        ([user("a"), {"role": "assistant", "content": None}], "has a turn whose content is not a text"),
        (["a"], "has under `messages` neither a text nor a list of turns"),
        (7, "has under `messages` neither a text nor a list of turns"),
        ("hello", "has under `messages` a text that is not JSON"),
        ([], "has nothing under `messages`"),
        (None, "has nothing under `messages`"),
    ],
)
def test_messages_that_are_no_conversation_say_why(messages: Any, expected: str) -> None:
    assert reason({"messages": messages}, "messages") == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "has a chosen answer that equals the rejected one"),
        ({"prompt": "a", "chosen": "b"}, "has no column `rejected` (but prompt, chosen)"),
        ({"prompt": "", "chosen": "b", "rejected": "c"}, "has nothing under `prompt`"),
        ({"prompt": "a", "chosen": " ", "rejected": "c"}, "has an empty turn"),
        ({"chosen": "b", "rejected": "c"}, SHARED),
        ({"chosen": [user("a"), assistant("b")], "rejected": [user("x"), assistant("b")]}, SHARED),
        (
            {"prompt": "a", "chosen": [user("a"), assistant("b")], "rejected": "c"},
            "has under `chosen` something other than one turn of the assistant",
        ),
        (
            {"prompt": [user("a"), assistant("b")], "chosen": "c", "rejected": "d"},
            "does not end with a turn of the user",
        ),
    ],
)
def test_pairs_that_cannot_be_compared_say_why(values: dict[str, Any], expected: str) -> None:
    assert reason(values, "preference") == expected


def test_a_transcript_that_begins_in_the_middle_shares_no_prompt() -> None:
    values = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "so.\n\nHuman: a\n\nAssistant: c"}
    assert reason(values, "preference", converter="transcript") == SHARED


def test_a_template_that_a_row_does_not_fit_is_that_rows_fault() -> None:
    columns = {"prompt": "{{ text }}", "completion": "{{ answer }}"}
    options = {"columns": columns}
    undefined = reason({"text": "a"}, "prompt_completion", **options)
    assert undefined == "does not fit the template of `completion` ('answer' is undefined)"
    missing = reason({"text": "a", "answer": None}, "prompt_completion", **options)
    assert missing == "does not fit the template of `completion` (a value is missing)"


def test_a_template_cannot_leave_its_sandbox() -> None:
    columns = {"prompt": "{{ text.__class__.__mro__ }}"}
    assert "unsafe" in reason({"text": "a", "completion": "b"}, "prompt_completion", columns=columns)


def test_a_template_that_is_none_is_the_configurations_fault() -> None:
    with pytest.raises(ConfigError, match=r"columns\.prompt: '{{ text' is not a Jinja template"):
        convert({"text": "a"}, "prompt_completion", columns={"prompt": "{{ text"})


def test_a_row_keeps_its_id_group_label_and_date() -> None:
    options = {"id_column": "n", "group_column": "who", "label_column": "what", "date_column": "when"}
    values = {"prompt": "a", "completion": "b", "n": 7, "who": "Ada", "what": "refund", "when": "2026-03-01T23:59:00Z"}
    found = convert(values, "prompt_completion", **options)
    assert isinstance(found, Example)
    assert (found.id, found.group, found.label, found.day) == ("7", "Ada", "refund", date(2026, 3, 1))
    assert reason(values | {"who": None}, "prompt_completion", **options) == "has nothing under `who`"


@pytest.mark.parametrize("value", ["2026-03-01", "20260301", datetime(2026, 3, 1, 12, tzinfo=UTC), date(2026, 3, 1)])
def test_dates_are_iso_texts_or_dates(value: Any) -> None:
    found = convert({"prompt": "a", "completion": "b", "day": value}, "prompt_completion", date_column="day")
    assert isinstance(found, Example)
    assert found.day == date(2026, 3, 1)


def test_other_dates_are_not_guessed() -> None:
    values = {"prompt": "a", "completion": "b", "day": "03/01/2026"}
    assert reason(values, "prompt_completion", date_column="day") == "has no ISO date under `day`"


def test_a_row_that_names_no_id_has_its_place() -> None:
    found = convert({"prompt": "a", "completion": "b"}, "prompt_completion")
    assert isinstance(found, Example)
    assert found.id == "x:1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"columns": {"completions": "text"}}, "completions is no field of the format preference, which has prompt,"),
        ({"cut_off": "2026-03-01"}, "needs date_column"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config({"format": "preference", "sources": ["x"], **change}, DatasetConfig, "x.yaml")
