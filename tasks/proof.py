"""Proves that a registered version, of whatever kind, can go live."""

from collections.abc import Callable, Mapping
from typing import Any

from tasks import adapters, releases, serving
from tasks.answering.prompting import check_turns
from tasks.records import kind_of

KINDS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "index": serving.prove,
    "adapter": adapters.prove,
    "prompt": lambda manifest: check_turns(manifest["turns"]),
    "release": releases.prove,
}
"""What proves a version of each kind."""


def prove(manifest: Mapping[str, Any]) -> None:
    """Show that the version loads, is whole and fits. Raises a TandemError that says what is wrong."""
    KINDS[kind_of(manifest)](manifest)
