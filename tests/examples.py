"""Rows to train on, made by hand."""

from datetime import date

from tasks.training.formats import Example


def example(asked: str, answer: str = "yes", *, place: str = "", **fields: str | date | None) -> Example:
    """A question with its answer; the question is its place and id, where none is given."""
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return Example(place=place or asked, id=asked, parts={"messages": turns}, **fields)  # type: ignore[arg-type]


def pair(asked: str, chosen: str, rejected: str, place: str = "") -> Example:
    parts = {
        "prompt": [{"role": "user", "content": asked}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
    return Example(place=place or asked, id=asked, parts=parts)
