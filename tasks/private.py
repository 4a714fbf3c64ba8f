"""Secrets and personal data in texts: only what can be told with few false alarms.

What has a checksum or a plan of numbers is checked against it. Names, addresses, and telephone numbers that are bare
digits or lack the + of another country are not looked for: no rule tells them from harmless text.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

NOISY = {"Base64 High Entropy String", "Hex High Entropy String", "Public IP (ipv4)"}
"""Detectors of detect-secrets that take quoted words and version numbers for secrets."""

EMAIL = re.compile(r"[\w.+-]+@((?:[a-z0-9-]+\.)+[a-z]{2,24})\b", re.IGNORECASE)
RESERVED = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid)$", re.IGNORECASE)
"""Domains that can belong to nobody (RFC 2606)."""
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
CARD = re.compile(r"(?<![\w.-])(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|3[47]\d\d|6\d{3})(?:[ -]?\d){9,15}(?![\w-])")
SOCIAL_SECURITY = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
PHONE = re.compile(r"\+ ?\(?\d[\d ()./-]{6}|\d{3}\)?[ .-] ?\d{3}[ .-]\d{4}")
"""What a telephone number has in it at least: the search for whole ones is slow."""
KEYWORD = re.compile(r"key|pass|pwd|secret|contrase", re.IGNORECASE)
"""What the detector of assignments such as `password = "…"` looks for, which is slow as well."""
KEY_BLOCK = re.compile(r"-----BEGIN [^-]+-----.*?(?:-----END [^-]+-----|\Z)", re.DOTALL)
_REMEMBERED = 4096

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Private:
    """One secret or piece of personal data, and where it stands: ``text[start:end]``."""

    kind: str
    """Such as ``e-mail address``."""
    start: int
    end: int


def find_private(text: str) -> list[str]:
    """The kinds of secrets and personal data in a text, such as "e-mail address"; never the data itself."""
    return list(dict.fromkeys(found.kind for found in locate_private(text)))


@lru_cache(_REMEMBERED)
def locate_private(text: str) -> tuple[Private, ...]:
    """Every secret and piece of personal data in a text, by kind; several kinds may claim the same characters."""
    return tuple(
        Private(kind, *span) for kind, find in (_PERSONAL | _secrets()).items() for span in dict.fromkeys(find(text))
    )


def _emails(text: str) -> Iterator[Span]:
    return (match.span() for match in EMAIL.finditer(text) if not RESERVED.search(match[1]))


def _ibans(text: str) -> Iterator[Span]:
    from stdnum import iban

    return (match.span() for match in IBAN.finditer(text) if iban.is_valid(match[0]))


def _cards(text: str) -> Iterator[Span]:
    from stdnum import luhn

    return (match.span() for match in CARD.finditer(text) if luhn.is_valid(re.sub(r"\D", "", match[0])))


def _social_security(text: str) -> Iterator[Span]:
    from stdnum.us import ssn

    return (match.span() for match in SOCIAL_SECURITY.finditer(text) if ssn.is_valid(match[0]))


def _phones(text: str) -> Iterator[Span]:
    if not PHONE.search(text):
        return
    from phonenumbers import Leniency, PhoneNumberMatcher

    american = PhoneNumberMatcher(text, "US", leniency=Leniency.STRICT_GROUPING)
    for found in (*PhoneNumberMatcher(text, None), *(number for number in american if not number.raw_string.isdigit())):
        yield found.start, found.end


_PERSONAL: dict[str, Callable[[str], Iterator[Span]]] = {
    "e-mail address": _emails,
    "IBAN": _ibans,
    "card number": _cards,
    "social security number": _social_security,
    "telephone number": _phones,
}


def _key_blocks(text: str) -> Iterator[Span]:
    """The whole block: the detector of private keys names no more than a part of its first line."""
    return (match.span() for match in KEY_BLOCK.finditer(text) if "PRIVATE KEY" in match[0])


def _assignments(text: str) -> Iterator[Span]:
    if not KEYWORD.search(text):
        return iter(())
    from detect_secrets.plugins.keyword import KeywordDetector

    return _places(text, set(KeywordDetector().analyze_string(text)))


def _places(text: str, secrets: set[str]) -> Iterator[Span]:
    return (match.span() for secret in sorted(filter(None, secrets)) for match in re.finditer(re.escape(secret), text))


@cache
def _secrets() -> dict[str, Callable[[str], Iterator[Span]]]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    def finder(detector: type) -> Callable[[str], Iterator[Span]]:
        analyze = detector().analyze_string
        return lambda text: _places(text, set(analyze(text)))

    detectors: dict[str, type] = get_mapping_from_secret_type_to_class()
    found = {kind: finder(detector) for kind, detector in sorted(detectors.items()) if kind not in NOISY}
    named = found["Private Key"]
    return found | {
        "Secret Keyword": _assignments,
        "Private Key": lambda text: iter([*_key_blocks(text), *named(text)]),
    }
