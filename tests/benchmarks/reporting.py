"""Where the measurements are written, and how they are shown."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.machine import describe

RESULTS = Path(__file__).parent / "results"


def save(name: str, title: str, result: dict[str, Any], parts: Sequence[str]) -> None:
    """Write results/NAME.json and results/NAME.md, both with the machine's description, and print the latter."""
    machine = describe()
    known = "\n".join(f"- {key}: {value}" for key, value in machine.items())
    write(name, {"machine": machine, **result}, "\n\n".join([f"# {title}", known, *parts]) + "\n")


def write(name: str, result: dict[str, Any], text: str) -> None:
    """Write the result as results/NAME.json and the text as results/NAME.md, and print the latter."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, default=str) + "\n", "utf-8")
    (RESULTS / f"{name}.md").write_text(text, "utf-8")
    print(text)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table; numbers with three figures after the point where they are small."""
    lines = [columns, ["---"] * len(columns), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)
