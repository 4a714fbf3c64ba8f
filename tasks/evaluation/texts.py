"""How near a text comes to short references, by the rules of SQuAD (Rajpurkar et al., 2016, arXiv 1606.05250).

Case, punctuation, articles and spaces do not count.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """The text without what does not count."""
    return " ".join(ARTICLES.sub(" ", text.casefold().translate(PUNCTUATION)).split())


def exact_match(text: str, references: Sequence[str]) -> float:
    """1 where the text is one of the references."""
    return float(plain(text) in set(map(plain, references)))


def token_f1(text: str, references: Sequence[str]) -> float:
    """The highest F1 over words that the text has with one of the references; words count as often as they occur."""
    return max((_f1(plain(text).split(), plain(reference).split()) for reference in references), default=0.0)


def holds(text: str, references: Sequence[str]) -> bool:
    """Whether one of the references stands in the text, as whole words."""
    return any(f" {plain(reference)} " in f" {plain(text)} " for reference in references)


def share_held(text: str, sources: Sequence[str]) -> float:
    """The share of a text's words that stand in its sources; 0 for a text without words."""
    words, known = plain(text).split(), {word for source in sources for word in plain(source).split()}
    return sum(word in known for word in words) / len(words) if words else 0.0


def _f1(ours: Sequence[str], theirs: Sequence[str]) -> float:
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0
