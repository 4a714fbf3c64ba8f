"""Reads an answer's marks: which sentence rests on which passages."""

import re

from sentencex import segment

from tasks.records import Sentence

MARKED = re.compile(r"(?P<text>.*?)(?P<marks>(?:\s*\[\d+(?:\s*,\s*\d+)*\])+)(?P<stop>[.!?]?)", re.DOTALL)


def read_sentences(text: str, passages: int) -> tuple[Sentence, ...]:
    """The sentences of an answer with the passages they cite; a number that no passage has is no citation.

    Marks cite for the sentence that they end, or stand in, and for none before it.
    """
    sentences: list[Sentence] = []
    place = 0
    for match in MARKED.finditer(text):
        *before, last = _split(match["text"]) or [""]
        sentences += [Sentence(sentence, ()) for sentence in before]
        cited = dict.fromkeys(
            number for number in map(int, re.findall(r"\d+", match["marks"])) if 1 <= number <= passages
        )
        if last:
            sentences.append(Sentence(last + match["stop"], tuple(cited)))
        elif sentences:  # marks behind the full stop and those before it
            sentences[-1] = Sentence(sentences[-1].text, tuple(dict.fromkeys((*sentences[-1].cited, *cited))))
        place = match.end()
    return (*sentences, *(Sentence(sentence, ()) for sentence in _split(text[place:])))


def write_sentence(sentence: Sentence) -> str:
    return " ".join([sentence.text, *(f"[{number}]" for number in sentence.cited)])


def _split(text: str) -> list[str]:
    return [sentence.strip() for sentence in segment("en", text) if sentence.strip()]
