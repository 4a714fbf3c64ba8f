"""Folders of markdown documents for the measurements, made from the real data beside the project."""

import json
from collections.abc import Collection
from pathlib import Path

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
HANDBOOK = SHARED / "handbook" / "pages"
SCIFACT = SHARED / "scifact"

OFFICES = ("Boston", "Chicago", "Denver", "Fresno", "Helena", "Juneau", "Mobile", "Omaha", "Reno", "Tulsa")


def make_corpus(folder: Path, n: int, pages: Path = HANDBOOK) -> list[Path]:
    """Write n handbook-like documents below the folder: the real pages, then copies with their own wording.

    The same call always writes the same bytes. Every paragraph of a copy names the copy's office, so that no
    two documents share a passage.
    """
    originals = sorted(pages.rglob("*.md"))
    written = []
    for number in range(n):
        original = originals[number % len(originals)]
        copy = number // len(originals)
        target = folder / f"part-{copy:03d}" / original.relative_to(pages)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = original.read_text("utf-8")
        target.write_text(_reworded(text, copy) if copy else text, "utf-8")
        written.append(target)
    return written


def _reworded(text: str, copy: int) -> str:
    office = f"{OFFICES[copy % len(OFFICES)]} office {copy}"
    lines = text.split("\n")
    front = lines.index("---", 1) + 1 if lines[0] == "---" and "---" in lines[1:] else 0
    in_code = False
    for i in range(front, len(lines)):
        line = lines[i]
        if line.startswith("```"):
            in_code = not in_code
        elif line.startswith("#") and not in_code:
            lines[i] = f"{line.rstrip()} in the {office}"
        elif line[:1].isalpha() and not in_code and not lines[i - 1].strip():
            lines[i] = f"In the {office}: {line}"
    return "\n".join(lines)


def write_scifact(folder: Path, needed: Collection[str] = (), every: int = 1) -> list[Path]:
    """Write scifact abstracts as `<id>.md`, the title as the heading: those that are needed, and every so many."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with (SCIFACT / "corpus.jsonl").open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            record = json.loads(line)
            if number % every and record["_id"] not in needed:
                continue
            target = folder / f"{record['_id']}.md"
            target.write_text(f"# {record['title']}\n\n{record['text']}\n", "utf-8")
            written.append(target)
    return written
