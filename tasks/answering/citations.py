"""Reads an answer's marks: which sentence rests on which passages."""

import re

from sentencex import segment

from tasks.records import Sentence

MARK = re.compile(r"\[\d++(?:\s*+,\s*+\d++)*+\]")
"""Sought alone: an expression that begins with the text before it reads that text anew from each of its letters."""
_STOPS = (".", "!", "?")
DIGITS = 9
"""A longer number is that of no passage, and Python refuses to read it from a few thousand on."""


def read_sentences(text: str, passages: int) -> tuple[Sentence, ...]:
    """The sentences of an answer with the passages they cite; a number that no passage has is no citation.

    Marks cite for the sentence that they end, or stand in, and for none before it.
    """
    sentences: list[Sentence] = []
    place = 0
    for start, end in _marks(text):
        *before, last = _split(text[place:start]) or [""]
        place = end + (text[end : end + 1] in _STOPS)
        sentences += [Sentence(sentence, ()) for sentence in before]
        numbers = (int(number) for number in re.findall(r"\d+", text[start:end]) if len(number) <= DIGITS)
        cited = dict.fromkeys(number for number in numbers if 1 <= number <= passages)
        if last:
            sentences.append(Sentence(last + text[end:place], tuple(cited)))
        elif sentences:  # marks behind the full stop and those before it
            sentences[-1] = Sentence(sentences[-1].text, tuple(dict.fromkeys((*sentences[-1].cited, *cited))))
    return (*sentences, *(Sentence(sentence, ()) for sentence in _split(text[place:])))


def _marks(text: str) -> list[tuple[int, int]]:
    """Where marks stand; those with nothing but spaces between them are one."""
    runs: list[tuple[int, int]] = []
    for match in MARK.finditer(text):
        if runs and not text[runs[-1][1] : match.start()].strip():
            runs[-1] = (runs[-1][0], match.end())
        else:
            runs.append(match.span())
    return runs


def write_sentence(sentence: Sentence) -> str:
    return " ".join([sentence.text, *(f"[{number}]" for number in sentence.cited)])


def _split(text: str) -> list[str]:
    return [sentence.strip() for sentence in segment("en", text) if sentence.strip()]
