"""Tells text that gives orders to an assistant from text that informs people.

Passages are material, so an order in one is an attack, or at least nothing to quote ("indirect prompt injection":
Greshake et al., 2023, arXiv 2302.12173). Signs are counted sentence by sentence: some are enough alone, such as
"ignore previous instructions", others only two together, because manuals also say "reply only with your number".
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

ENOUGH = 2
"""Points within two sentences that follow each other."""
_REMEMBERED = 4096
_HIDDEN = ("Cf", "Mn")
"""Unicode categories of what is not seen: formats such as zero-width spaces, and accents once they are set apart."""

_LOOK_ALIKE = str.maketrans("аеорсухіјѕԁɡαοιν", "aeopcyxijsdgaoiv")
"""Cyrillic and Greek letters that pass for Latin ones."""
_SPACED = re.compile(r"(?<!\w)(?:\w[ .\-_*]){3,}\w(?!\w)")
_SENTENCE = re.compile(r"(?<=[.!?;。])\s+|\n+")

_TOLD = (
    r"(?:instructions?|prompts?|guidelines?|directives?|directions?|commands?|orders?|rules|restrictions?|constraints?|"
    r"programming|training|safeguards?|guardrails?|context|conversation|messages?|tasks?|requests?|questions?|queries)"
)
_EARLIER = (
    r"(?:previous|prior|above|earlier|preceding|foregoing|former|initial|original|existing|current|system|safety|"
    r"your|all|any|every|other|everything)"
)
_MACHINE = (
    r"(?:ai|a\.i\.|llms?|gpt(?:-?\d\w*)?|chatgpt|claude|copilot|gemini|chat ?bots?|bots?|language models?|ai models?|"
    r"(?:ai |virtual |digital |helpful )assistants?|assistants?|ai agents?|"
    r"automated (?:\w+ ){0,2}(?:software|systems?|tools?|readers?))"
)
_SAY = r"(?:say|saying|reply|respond|answer|output|print|write|return|emit|repeat|produce|display|state|echo|type)"
_BEGIN = r"^[^\w\n]*"
"""A line's first word. What would read on over further lines, or past its own next beginning, takes time that grows
with the square of the text, and finds no more."""
_AS_MACHINE = r"\b(?:as|being) an? (?:ai|llm|language model)\b"
_NEAR, _WITHIN = r"[^.!?\n]{0,30}", r"[^.!?\n]{0,60}"

_ALONE = (
    # what was said before shall not count
    r"\b(?:ignor\w+|disregard\w*|forget|overrid\w+|overrul\w+|bypass\w*|discard|supersed\w+|neglect|abandon|"
    r"stop (?:following|obeying)|(?:do not|don't|never|no longer) (?:follow|obey|apply)|pay no attention to)\b"
    rf"{_NEAR}\b{_EARLIER}\b{_NEAR}\b(?:{_TOLD}|text|passages?|documents?|above|before|else|"
    r"(?:you|have been|were) told)\b",
    r"\b(?:forget|ignore|disregard) (?:about )?(?:all|everything|anything|whatever|what) (?:of )?(?:that|you|i|was)",
    rf"\b(?:instead of|rather than) (?:answering|responding|replying|following|completing)\b{_WITHIN}\b{_SAY}\b",
    rf"\b(?:ignorier\w*|vergiss|missachte)\b{_WITHIN}\b(?:anweisung\w*|regeln|vorgaben|befehle|prompt)\b",
    rf"\b(?:ignore[zs]?|oublie[zs]?)\b{_WITHIN}\b(?:instructions|consignes|directives)\b",
    rf"\b(?:ignora|ignore|olvida|dimentica|esqueca)\b{_WITHIN}\b(?:instrucciones|istruzioni|instrucoes)\b",
    rf"\bnegeer\b{_WITHIN}\binstructies\b",
    # a new speaker, a new role
    r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|?>?|\[/?(?:inst|system)\]|<</?sys>>",
    r"</?(?:system|instructions?|system_prompt|assistant|admin)(?:[ _-]\w+)?>",
    r"^#{2,} ?(?:system|instruction)s?\b:?\s*$",
    rf"{_BEGIN}(?:system|assistant|developer)(?: (?:prompt|message|note|override|update))?\W*:\s*\S",
    r"\b(?:new|updated|revised|real|actual|hidden|secret|important|special) instructions? (?:for|to) (?:the |you)",
    r"\bnew instructions?(?:\s*:| (?:follow|apply)\b)",
    rf"\b(?:begin|start|end) (?:of )?(?:the )?(?:new |hidden )?(?:system )?{_TOLD}\s*[:\]>)=]",
    r"\b(?:jailbreak|jailbroken|do anything now|developer mode|god mode|unrestricted mode|maintenance mode)\b",
    r"\b(?:pretend|act|behave|role-?play)\b[^.!?\n]{0,12}\byou (?:are|were|have|had)\b",
    rf"\bif you(?: are|'re| were) (?:an? |the )?{_MACHINE}\b",
    rf"{_AS_MACHINE}(?:(?!{_AS_MACHINE})[^.!?\n])*\byou\b",
    r"\b(?:attention|note|message|instructions?|memo|dear|hello|hey|reminder)\b"
    rf"[^.!?\n]{{0,12}}\b{_MACHINE}\b[^.!?:\n]{{0,30}}[:,!\-]",
    rf"\b(?:to|for) (?:the |any |every |all )?{_MACHINE} (?:who |that |which )?"
    r"(?:reading|reads?|processing|processes|summari[sz])",
    # the assistant's own instructions
    r"\bsystem ?_?(?:prompt|instructions?|message)\b",
    r"\b(?:initial|hidden|original|starting|secret|first) (?:prompt|instructions?)\b",
    r"\byour (?:\w+ )?(?:prompt|instructions|guidelines|programming|system configuration)\b",
    rf"\b{_TOLD} (?:that )?(?:you|i) (?:were|have been|was|are) (?:given|told|sent|shown)\b",
    r"\bwhat (?:were|was|are|have) you (?:been )?(?:told|instructed|not (?:supposed|allowed))|\bi was instructed to\b",
    r"\b(?:repeat|output|print|show|copy|translate|encode|summari[sz]e)\b[^.!?\n]{0,40}\b(?:text|words|everything|all|"
    r"conversation)\b[^.!?\n]{0,12}\b(?:above|so far|verbatim|back to me|word for word)\b",
    r"\b(?:repeat|output|print) the (?:above|previous|preceding)\b",
    r"\b(?:system|initiali[sz]ation) (?:string|configuration)",
    r"\b(?:admin\w*|developer|system|security) override\b",
    # what is sent, or kept from the reader
    r"!\[(?:(?!!\[)[^\]])*\]\(\s*https?:[^)]*[{<\[]",
    r"\b(?:do not|don't|never|without) (?:tell|telling|mention|mentioning|reveal|revealing|inform|informing|alert)\w*\b"
    rf"{_NEAR}\b(?:users?|reader|anyone|these instructions|this instruction)\b",
)
_TOGETHER = (
    r"\byou (?:are|will be|have become) now\b|\byou now (?:are|have)\b|"
    r"\bfrom (?:now|this (?:point|moment)) on(?:wards?)?\b",
    rf"\b(?:{_SAY}|handle|treat) (?:to )?(?:every|all|any) (?:questions?|quer(?:y|ies)|requests?|messages?|users?)\b",
    rf"(?:^|[,:]\s*)(?:please )?{_MACHINE}\b"
    r"(?:,|:| (?:must|should|shall|is to|are to|has to|have to|needs? to|please|will))",
    r"\b(?:the|any|every|all|this) (?:ai|llm|chat ?bot|language model|(?:ai |virtual )?assistant)s?\b"
    rf"{_NEAR}\b(?:must|should|shall|is to|are to|has to|have to|needs? to|reading|processing|answering)\b",
    rf"\b{_SAY}\b{_WITHIN}\b(?:exactly|verbatim|nothing (?:else|but)|word for word|and (?:then )?stop|"
    r"the (?:following|exact|single|one)? ?(?:word|phrase|text|string|sentence|token|code|marker)s?)\b",
    rf"\b(?:only|just|simply|merely|always|instead|exclusively) {_SAY}\b|"
    rf"\b{_SAY} (?:only|just|simply|solely|instead)\b|{_BEGIN}(?:please )?(?:now )?{_SAY}\b(?!\s*(?:to|for|from)\b)",
    r"\b(?:your|the|every|each|any) (?:next |final |own )?"
    r"(?:answer|response|reply|output|completion|summary)(?:s|es)?\b",
    r"\b(?:when|whenever|if|once|after|before|any ?time|no matter what|whatever)\b[^.!?\n]{0,40}\b(?:asked|asks?|"
    r"answering|question|query|user|summari[sz]\w+|respond\w*|prompt\w*)\b",
    r"\b(?:the|any|every) (?:user|person asking)(?:'s)?\b",
    r"\b(?:ignore|disregard|forget|discard) (?:them|it|this|these|that|the (?:rest|remainder|other))\b",
    r"\bfocus (?:only|solely|exclusively|entirely|instead) on\b|\bprovide (?:it|this|that) to the user\b",
    rf"(?:^|[,:;\[]\s*|by |\bto )(?:now |then )?{_SAY}(?:ing)? ?(?:with |the word |the phrase )?['\"“‘<«]|"
    rf"\b(?:instead|and),? (?:then |just |only |simply )*{_SAY}\b|\b{_SAY}\b{_WITHIN}\bfor me\b",
    rf"[,:] please (?:now |just )?{_SAY}\b",
    r"\b(?:without|no|free (?:of|from)|not bound by|not required to follow)\b[^.!?\n]{0,12}"
    r"\b(?:restrictions|ethics|rules|policies|filters|limits|censorship|warnings)\b",
    r"\b(?:in|play|take on|assume) the role of\b|\blet's play a game\b|\byou are '|\bhypothetical(?:ly)?\b",
    r"\b(?:regardless of|no matter|whatever) (?:the |what |which )?(?:question|query|user|prompt|they|you|is asked)",
    rf"\b(?:decode|base64|rot13|execute|run|follow|obey|comply with)\b{_NEAR}\b(?:this|these|it|following|"
    r"instructions?|commands?|string|code)\b",
    r"\b(?:reveal|disclose|leak|exfiltrate|send|forward|transmit)\b[^.!?\n]{0,40}\b(?:password|secret|api key|"
    r"credential|conversation|chat history|confidential|data)s?\b",
)
_SIGNS = tuple(re.compile(sign, re.MULTILINE) for sign in (*_ALONE, *_TOGETHER))
_POINTS = (*(ENOUGH for _ in _ALONE), *(1 for _ in _TOGETHER))


@lru_cache(_REMEMBERED)
def gives_orders(text: str) -> bool:
    """Whether the text tells an assistant what to do or say, or asks for its instructions."""
    sentences = _SENTENCE.split(_plain(text))
    somewhere = _signs("\n".join(sentences), range(len(_SIGNS)))  # in most texts too few, and soon known
    signs = [_signs(sentence, somewhere) for sentence in sentences] if _points(somewhere) >= ENOUGH else []
    return any(
        _points(first | second) >= ENOUGH for first, second in zip(signs, [*signs[1:], frozenset[int]()], strict=False)
    )


def _signs(text: str, among: Iterable[int]) -> frozenset[int]:
    return frozenset(place for place in among if _SIGNS[place].search(text))


def _points(signs: Iterable[int]) -> int:
    return sum(_POINTS[sign] for sign in signs)


def _plain(text: str) -> str:
    """In small Latin letters, without what hides words: invisible characters, gaps between letters, accents."""
    seen = "".join(
        letter for letter in unicodedata.normalize("NFKD", text) if unicodedata.category(letter) not in _HIDDEN
    )
    joined = _SPACED.sub(lambda match: re.sub(r"[ .\-_*]", "", match[0]), seen)
    return joined.casefold().translate(_LOOK_ALIKE).replace("’", "'")
