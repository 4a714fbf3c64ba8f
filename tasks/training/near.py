"""Finds rows that are nearly the same in their words, exactly and without comparing every two.

Rows are compared by the Jaccard similarity of their sets of three-word shingles (Broder, On the resemblance and
containment of documents, 1997). Two sets that are similar enough share one of their rarest shingles, so only rows that
do are compared (prefix filtering: Chaudhuri, Ganti and Kaushik, A primitive operator for similarity joins in data
cleaning, 2006); unlike with MinHash, none is missed. What many rows have in common, such as an instruction or a list of
labels before every question, is left aside: it would make any two of them look alike.
"""

import math
import re
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.training.formats import Example, Turn

if TYPE_CHECKING:
    import numpy as np

    Shingles = np.ndarray[Any, np.dtype[np.uint32]]
    """Hashes of the shingles, each once, the rarest first."""

WORDS = 3
"""Words of a shingle."""
COMMON_SHARE, COMMON_ROWS = 0.05, 20
"""A shingle of more than this share of the rows, and of more rows than this, is left aside."""


def sketch_all(examples: Sequence[Example]) -> list["Shingles"]:
    """What the rows say, system turns and common text aside, as sets that can be compared with one another.

    A row that says nothing but what is common is compared by that.
    """
    import numpy as np

    sets = [np.array(sorted(_hashes(example)), dtype=np.uint32) for example in examples]
    if not sets:
        return []
    known, counts = np.unique(np.concatenate(sets), return_counts=True)
    most = max(COMMON_ROWS, COMMON_SHARE * len(sets))
    ranked = []
    for own in sets:
        rows = counts[np.searchsorted(known, own)]
        order = np.argsort(rows, kind="stable")
        ranked.append(own[order][rows[order] <= most] if rows.min() <= most else own[order])
    return ranked


class NearIndex:
    """Looks up rows among those added. `threshold` is the least Jaccard similarity of a match."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._known: list[Shingles] = []
        self._having: dict[int, list[int]] = defaultdict(list)

    def add(self, shingles: "Shingles") -> None:
        for shingle in self._rarest(shingles):
            self._having[shingle].append(len(self._known))
        self._known.append(shingles)

    def find(self, shingles: "Shingles") -> int | None:
        """The number of the first row added that is as similar, if any."""
        import numpy as np

        numbers = sorted({number for shingle in self._rarest(shingles) for number in self._having.get(shingle, ())})
        if not numbers:
            return None
        others = [self._known[number] for number in numbers]
        sizes = np.array([len(other) for other in others])
        is_shared = np.isin(np.concatenate(others), shingles)
        shared = np.add.reduceat(is_shared, np.cumsum(sizes) - sizes, dtype=int)
        similar = shared / (len(shingles) + sizes - shared) >= self._threshold
        return numbers[int(similar.argmax())] if similar.any() else None

    def _rarest(self, shingles: "Shingles") -> list[int]:
        """So many that a set without one of them cannot share enough of the others."""
        needed = math.ceil(self._threshold * len(shingles) - 1e-9)
        return shingles[: len(shingles) - needed + 1].tolist()


def words_of(turns: Sequence[Turn]) -> str:
    """The words of the turns but the system's, without case, punctuation and spacing; the bare text, if it has none."""
    text = "\n".join(turn["content"] for turn in turns if turn["role"] != "system")
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def _hashes(example: Example) -> set[int]:
    text = words_of([turn for part in example.parts.values() for turn in part])
    words = text.encode("utf-8", "surrogatepass").split(b" ")
    return {zlib.crc32(b" ".join(words[n : n + WORDS])) for n in range(max(1, len(words) - WORDS + 1))}
