"""Secrets and personal data in texts: only what can be told with few false alarms.

What has a checksum or a plan of numbers is checked against it. Names, addresses, and telephone numbers that are bare
digits or lack the + of another country are not looked for: no rule tells them from harmless text.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from tasks.credentials import Span, locate_secrets

EMAIL = "e-mail address"
HOST = re.compile(r"@((?:[a-z0-9-]+\.)+[a-z]{2,24})\b", re.IGNORECASE)
"""What follows the name in an e-mail address; from here the name is read backwards, once."""
MAILBOX = re.compile(r"[\w.+-]")
RESERVED = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid)$", re.IGNORECASE)
"""Domains that can belong to nobody (RFC 2606)."""
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
CARD = re.compile(r"(?<![\w.-])(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|3[47]\d\d|6\d{3})(?:[ -]?\d){9,15}(?![\w-])")
SOCIAL_SECURITY = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
PHONE = re.compile(r"\+ ?\(?\d[\d ()./-]{6}|\d{3}\)?[ .-] ?\d{3}[ .-]\d{4}")
"""What a telephone number has in it at least: the search for whole ones is slow."""
_REMEMBERED = 4096


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
    secrets = [Private(kind, *span) for kind, span in locate_secrets(text)]
    begun = {secret.end - text.endswith("@", 0, secret.end): secret.start for secret in secrets}
    personal = (Private(kind, *span) for kind, find in _PERSONAL.items() for span in dict.fromkeys(find(text)))
    return (*(each for each in personal if not (each.kind == EMAIL and _logs_in(text, each, begun))), *secrets)


def _logs_in(text: str, address: Private, begun: Mapping[int, int]) -> bool:
    """Whether it is no address, but a secret and the host that it is for, which stays: `https://ada:…@host.org`."""
    start = begun.get(text.index("@", address.start))
    return start is not None and start <= address.start


def _emails(text: str) -> Iterator[Span]:
    reach = 0
    for match in HOST.finditer(text):
        start = match.start()
        while start > reach and MAILBOX.match(text[start - 1]):
            start -= 1
        reach = match.end()
        if start < match.start() and not RESERVED.search(match[1]):
            yield start, match.end()


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
    EMAIL: _emails,
    "IBAN": _ibans,
    "card number": _cards,
    "social security number": _social_security,
    "telephone number": _phones,
}
