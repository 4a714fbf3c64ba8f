"""Secrets and personal data in texts: only what can be told with few false alarms.

What has a checksum or a plan of numbers is checked against it. Names, addresses, and telephone numbers that are bare
digits or lack the + of another country are not looked for: no rule tells them from harmless text.
"""

import re
from collections.abc import Callable
from functools import cache

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


def find_private(text: str) -> list[str]:
    """The kinds of secrets and personal data in a text, such as "e-mail address"; never the data itself."""
    return [kind for kind, is_in in (_PERSONAL | _secrets()).items() if is_in(text)]


def _has_email(text: str) -> bool:
    return any(not RESERVED.search(domain) for domain in EMAIL.findall(text))


def _has_iban(text: str) -> bool:
    from stdnum import iban

    return any(iban.is_valid(found) for found in IBAN.findall(text))


def _has_card(text: str) -> bool:
    from stdnum import luhn

    return any(luhn.is_valid(re.sub(r"\D", "", found)) for found in CARD.findall(text))


def _has_social_security(text: str) -> bool:
    from stdnum.us import ssn

    return any(ssn.is_valid(found) for found in SOCIAL_SECURITY.findall(text))


def _has_phone(text: str) -> bool:
    if not PHONE.search(text):
        return False
    from phonenumbers import Leniency, PhoneNumberMatcher

    american = PhoneNumberMatcher(text, "US", leniency=Leniency.STRICT_GROUPING)
    return PhoneNumberMatcher(text, None).has_next() or any(not found.raw_string.isdigit() for found in american)


_PERSONAL: dict[str, Callable[[str], bool]] = {
    "e-mail address": _has_email,
    "IBAN": _has_iban,
    "card number": _has_card,
    "social security number": _has_social_security,
    "telephone number": _has_phone,
}


def _has_assignment(text: str) -> bool:
    if not KEYWORD.search(text):
        return False
    from detect_secrets.plugins.keyword import KeywordDetector

    return any(KeywordDetector().analyze_string(text))


@cache
def _secrets() -> dict[str, Callable[[str], bool]]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    def has(detector: type) -> Callable[[str], bool]:
        analyze = detector().analyze_string
        return lambda text: any(analyze(text))

    detectors: dict[str, type] = get_mapping_from_secret_type_to_class()
    found = {kind: has(detector) for kind, detector in sorted(detectors.items()) if kind not in NOISY}
    return found | {"Secret Keyword": _has_assignment}
