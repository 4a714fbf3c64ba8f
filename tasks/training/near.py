"""Finds rows that are nearly the same in their words, exactly and without comparing every two.

Rows are compared by the Jaccard similarity of their sets of three-word shingles (Broder, On the resemblance and
containment of documents, 1997). Two sets that are similar enough share one of their rarest shingles, so only rows that
do are compared (prefix filtering: Chaudhuri, Ganti and Kaushik, A primitive operator for similarity joins in data
cleaning, 2006); unlike with MinHash, none is missed. What many rows have in common, such as an instruction or a list of
labels before every question, is left aside: it would make any two of them look alike. But text that is common because
it was copied many times must not hide its copies: a row that says next to nothing else is compared as a whole.
"""

import math
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tasks.training.formats import Example, Turn

if TYPE_CHECKING:
    import numpy as np

    Shingles = np.ndarray[Any, np.dtype[np.uint32]]
    """Hashes of the shingles, each once, the rarest first."""

WORDS = 3
"""Words of a shingle."""
COMMON_SHARE, COMMON_ROWS = 0.05, 20
"""A shingle of more than this share of the rows, and of more rows than this, is left aside where a row has others."""
EVERYWHERE_SHARE = 0.9
"""One of more than this share of the rows is an instruction to all, and left aside however little is left."""
FEW_OF_ITS_OWN = WORDS + 1
"""Fewer shingles that are not common come from one word: changed in a copy, and no question under an instruction."""
AT_ONCE = 64
"""Rows compared in one go: where many are alike, one of the first mostly is."""


def sketch_all(examples: Sequence[Example]) -> list["Shingles"]:
    """What the rows say, system turns and common text aside, as sets that can be compared with one another.

    A row that says little but what is common is compared by that, too.
    """
    import numpy as np

    sets = [np.array(sorted(_hashes(example)), dtype=np.uint32) for example in examples]
    if not sets:
        return []
    known, counts = np.unique(np.concatenate(sets), return_counts=True)
    common = max(COMMON_ROWS, COMMON_SHARE * len(sets))
    everywhere = max(COMMON_ROWS, EVERYWHERE_SHARE * len(sets))
    ranked = []
    for own in sets:
        rows = counts[np.searchsorted(known, own)]
        order = np.argsort(rows, kind="stable")
        ranked.append(own[order][: _compared(rows[order], common, everywhere)])
    return ranked


def _compared(rows: "np.ndarray[Any, Any]", common: float, everywhere: float) -> int:
    """How many of a row's shingles are compared, from the numbers of rows that have each, the lowest first."""
    rare, not_everywhere = (int(rows.searchsorted(most, "right")) for most in (common, everywhere))
    return (rare if rare >= FEW_OF_ITS_OWN else not_everywhere) or len(rows)


class NearIndex:
    """Looks up rows among those added. `threshold` is the least Jaccard similarity of a match."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._known: list[Shingles] = []
        self._having: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        """By shingle: rows, how many of their shingles are no rarer, and how many they have."""

    def add(self, shingles: "Shingles") -> None:
        for place, shingle in enumerate(self._rarest(shingles)):
            self._having[shingle].append((len(self._known), len(shingles) - place, len(shingles)))
        self._known.append(shingles)

    def find(self, shingles: "Shingles") -> int | None:
        """The number of the first row added that is as similar, if any."""
        return next(self.find_all(shingles), None)

    def find_all(self, shingles: "Shingles") -> Iterator[int]:
        """The numbers of all rows added that are as similar, the first one first."""
        import numpy as np

        numbers = self._that_may_be_similar(shingles)
        for start in range(0, len(numbers), AT_ONCE):
            some = numbers[start : start + AT_ONCE]
            others = [self._known[number] for number in some]
            sizes = np.array([len(other) for other in others])
            is_shared = np.isin(np.concatenate(others), shingles)
            shared = np.add.reduceat(is_shared, np.cumsum(sizes) - sizes, dtype=int)
            similar = shared / (len(shingles) + sizes - shared) >= self._threshold
            yield from (some[place] for place in np.flatnonzero(similar))

    def _that_may_be_similar(self, shingles: "Shingles") -> list[int]:
        """Rows with a shingle in common from which on both have enough left to share."""
        enough = self._threshold / (1 + self._threshold) - 1e-9
        return sorted(
            {
                number
                for place, shingle in enumerate(self._rarest(shingles))
                for number, left, size in self._having.get(shingle, ())
                if min(left, len(shingles) - place) >= enough * (size + len(shingles))
            }
        )

    def _rarest(self, shingles: "Shingles") -> list[int]:
        """So many that a set without one of them cannot share enough of the others."""
        needed = math.ceil(self._threshold * len(shingles) - 1e-9)
        return shingles[: len(shingles) - needed + 1].tolist()


def cluster(examples: Sequence[Example], threshold: float) -> list[int]:
    """A number for each row, the same for rows that are as similar as that, and for all that are linked by others."""
    from scipy.cluster.hierarchy import DisjointSet

    index, sets = NearIndex(threshold), DisjointSet(range(len(examples)))
    for number, shingles in enumerate(sketch_all(examples)):
        for other in index.find_all(shingles):
            sets.merge(number, other)
        index.add(shingles)
    return [int(sets[number]) for number in range(len(examples))]


def words_of(turns: Sequence[Turn]) -> str:
    """The words of the turns but the system's, without case, punctuation and spacing; the bare text, if it has none."""
    text = "\n".join(turn["content"] for turn in turns if turn["role"] != "system")
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def _hashes(example: Example) -> set[int]:
    text = words_of([turn for part in example.parts.values() for turn in part])
    words = text.encode("utf-8", "surrogatepass").split(b" ")
    return {zlib.crc32(b" ".join(words[n : n + WORDS])) for n in range(max(1, len(words) - WORDS + 1))}
