"""Proves that a registered version, of whatever kind, can go live."""

from collections.abc import Mapping
from typing import Any

from tasks import adapters, serving


def prove(manifest: Mapping[str, Any]) -> None:
    """Show that the version loads, is whole and fits. Raises a TandemError that says what is wrong."""
    (adapters.prove if "adapter" in manifest else serving.prove)(manifest)
