"""Passages made by hand."""

from typing import Any

from tasks.records import Passage


def passage(text: str, **values: Any) -> Passage:
    """A passage of the document ``docs/page.md``, unless something else is said."""
    fixed = {
        "id": f"{values.get('document', 'docs/page.md')}#0",
        "document": "docs/page.md",
        "score": 1.0,
        "title": None,
        "heading": (),
        "start": 0,
        "end": len(text),
        "tenant": None,
        "language": None,
        "date": None,
        "tags": (),
        "stale": False,
        "parsed_key": "",
    }
    return Passage(text=text, **fixed | values)
