"""Secrets in texts, each as the whole that it is, in time that grows with the length of the text.

The expressions are those of detect-secrets, and a table of public prefixes that it lacks. An expression often names a
part: what it captures, or as many characters as the shortest token has. So a find is widened to the token that it
stands in. Some expressions take time that grows with the square of the text or worse, so they read it in windows that
overlap. The worst are replaced: those of assignments, JSON Web Tokens, npm, and users in addresses.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

Span = tuple[int, int]
Find = Callable[[str], Iterable[Span]]

NOISY = {"Base64 High Entropy String", "Hex High Entropy String", "Public IP (ipv4)"}
"""Detectors of detect-secrets that take quoted words and version numbers for secrets."""
WINDOW, OVERLAP = 1024, 256
"""Characters of a text that an expression reads at a time, and of those that the next time has as well: more than any
expression needs to know a token by."""

_PREFIXES = {  # as their makers publish them, so that scanners know a token; detect-secrets 1.5 lacks these
    "Anthropic Key": r"sk-ant-[\w-]{20}",
    "Artifactory Credentials": r"AKC[A-Za-z0-9]{50}",
    "Databricks Token": r"dapi[0-9a-f]{32}",
    "DigitalOcean Token": r"do[opr]_v1_[0-9a-f]{64}",
    "Docker Token": r"dckr_[po]at_[\w-]{20}",
    "GitHub Token": r"github_pat_\w{22}",
    "GitLab Token": r"gl(?:pat|dt|ft|soat|rt|rtr|cbt|imt|ptt|agent|oas|ffct|wt)-[\w-]{20}",
    "Google Key": r"AIza[\w-]{35}|GOCSPX-[\w-]{28}|ya29\.[\w-]{20}",
    "Grafana Token": r"glsa_[A-Za-z0-9]{32}",
    "Groq Key": r"gsk_[A-Za-z0-9]{40}",
    "Hugging Face Token": r"(?:hf|api_org)_[A-Za-z0-9]{30}",
    "NPM tokens": r"npm_[A-Za-z0-9]{36}|(?<=:_authToken=)(?:npm_|[A-Fa-f0-9-]{36}|[\w+/]{20})",
    "OpenAI Token": r"sk-(?:proj|svcacct|admin|or-v1)-[\w-]{20}|sk-[A-Za-z0-9]{32}",
    "PyPI Token": r"pypi-[\w-]{50}",
    "Shopify Token": r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    "Slack Token": r"xapp-\d-\w+-\d+-[a-z0-9]{20}|xox[a-z](?:\.xox[a-z])?-(?=[\w-]{0,20}\d)[\w-]{20}",
    "Stripe Access Key": r"[rs]k_live_\w{16}|whsec_[\w+/]{24}",
    "Tandem Key": r"tandem_[0-9a-f]{8}_[\w-]{20}",
    "Vault Token": r"hv[sbr]\.[\w-]{24}",
}
_REPEATED = {"AWS Access Key", "Basic Auth Credentials", "Cloudant Credentials", "IBM Cloud IAM Key"} | {
    "IBM COS HMAC Credentials",
    "Secret Keyword",
    "SoftLayer Credentials",
}
"""Kinds that are known by what stands beside them, so that the same secret elsewhere is not known by itself."""
_TELLING, _KNOWN_BY = 4, 16
"""Characters that a secret has at least, and by so many of which at the beginning it is known, to be found again."""
_SAME_BEGINNING = 8

_GAPS = "(?: *)(?:=|:|:=|=>| +|::)(?: *)"
"""Between a name and its value, in detect-secrets: a thousand spaces can be shared out among the three in so many ways
that one window takes minutes."""
_ONE_WAY = " *+(?:=>|:=|::|=|:|(?<= )) *+"
"""The same, with one way only."""
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_TAIL = re.compile(
    # words of base64url; what stands between two of them, also in base64 and where it is escaped; padding
    r"(?:[A-Za-z0-9_-]++|[.~](?=[A-Za-z0-9_-])|[+/]{1,3}(?=[A-Za-z0-9_=])|%[0-9A-Fa-f]{2})*+(?:={1,3}(?![A-Za-z0-9_=]))?"
)

_DOTTED = re.compile(r"(?<![A-Za-z0-9_.=-])[A-Za-z0-9_.=-]{20,}")
_BEGUN_JSON = "eyJ"
""" `{"` in base64."""

_NO_SPACE = r"[^\s\"'`<>"
_USER = re.compile(
    rf"://({_NO_SPACE}/?#@:]*+:(?:{_NO_SPACE}/?#]*{_NO_SPACE}/?#@]|(?!\d{{1,5}}[/?#]){_NO_SPACE}@]{{1,256}})@)(?=[\w\[])"
)
"""A name and a password before the host, with the @; a password with a slash, too, if it is not a port and a path."""

_KEY_NAME = r"BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?"
_KEY_BLOCK = re.compile(rf"-{{4,5}} ?{_KEY_NAME} ?-{{4,5}}.*?(?:-{{4,5}} ?END [^-\n]{{1,80}}-{{4,5}}|\Z)", re.DOTALL)
_KEY_BEGUN = re.compile(rf"-{{0,5}} ?{_KEY_NAME}(?:\s++[A-Za-z0-9+/=]{{16,}}+)*+")
_KEY_END = re.compile(r"-{4,5} ?END (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)? ?-{4,5}")
_KEY_LINE = re.compile(r"[ \t>]*[A-Za-z0-9+/=]{4,}\s*")
_PUTTY = re.compile(r"PuTTY-User-Key-File-\d[^\n]*(?:\n(?:[\w-]++: ?[^\n]*|[A-Za-z0-9+/=]++[ \r]*)(?=\n|\Z))*+")

_NAMED = re.compile(
    r"(?:api|auth|service|account|db|database|priv|private|client)[_-]?key|(?:db|database|key)[_-]?pass|"
    r"password|passwd|pwd|secret|contrase(?:ñ|n)a",
    re.IGNORECASE,
)
"""What the name of a secret has in it, as detect-secrets has it."""
_WORD = re.compile(r"(?<![\w-])[\w-]++")
_QUOTED = "|".join(
    rf"{quote}(?=\w)(?P<{name}>(?:\\.|[^{quote}\\\n]|\n(?!\s*\n))*?){quote}|{quote}(?=\w)(?P<plain_{name}>[^{quote}\n]*){quote}"
    for name, quote in (("double", '"'), ("single", "'"), ("back", "`"))
)
_ASSIGNED = re.compile(rf"[\]'\"]{{0,2}}\s*+(?::=?|={{1,3}}|!==?|=>)\s*+(?:{_QUOTED})")
_ENDED = re.compile(rf"\S{{0,50}}?\s*+(?:{_QUOTED});")
_COMPARED = re.compile(r"(['\"`])\s*+[!=]{2,3}+\s*+([\w-]++)")


def locate_secrets(text: str) -> Iterator[tuple[str, Span]]:
    """Every secret with its kind; several kinds may claim the same characters."""
    known: dict[str, str] = {}
    for kind, find in _finders().items():
        for start, end in dict.fromkeys(find(text)):
            yield kind, (start, end)
            if kind in _REPEATED:
                known.setdefault(
                    text[start:end].rpartition(":")[2].rstrip("@") if find is _users else text[start:end], kind
                )
    yield from _again(text, known)


@cache
def _finders() -> dict[str, Find]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    detectors: dict[str, type] = get_mapping_from_secret_type_to_class()
    patterns: dict[str, list[re.Pattern[str]]] = {
        kind: [
            re.compile(each.pattern.replace(_GAPS, _ONE_WAY), each.flags) for each in getattr(detector, "denylist", ())
        ]
        for kind, detector in detectors.items()
        if kind not in NOISY
    }
    patterns["NPM tokens"] = []  # its own takes the rest of the line as well
    for kind, prefix in _PREFIXES.items():
        patterns.setdefault(kind, []).append(re.compile(rf"(?<![A-Za-z0-9])(?:{prefix})", re.ASCII))
    found = {kind: _finder(tuple(expressions)) for kind, expressions in sorted(patterns.items())}
    named = found["Private Key"]
    return found | {
        "Basic Auth Credentials": _users,
        "JSON Web Token": _web_tokens,
        "Private Key": lambda text: [*_key_blocks(text), *named(text)],
        "Secret Keyword": _assignments,
    }


def _finder(patterns: tuple[re.Pattern[str], ...]) -> Find:
    return lambda text: _whole(text, (span for pattern in patterns for span in _matches(pattern, text)))


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    """What the expression names, window by window: what begins in the overlap is left to the next window."""
    for begin in range(0, max(1, len(text) - OVERLAP), WINDOW - OVERLAP):
        last = begin + WINDOW >= len(text)
        for match in pattern.finditer(text, begin, begin + WINDOW):
            if last or match.start() < begin + WINDOW - OVERLAP:
                yield _named(match)


def _named(match: re.Match[str]) -> Span:
    """What the expression captures behind its context, or all, without the spaces and quotes around it."""
    start, end = next((span for span in match.regs[1:] if span[0] > match.start()), match.span())
    bare = match.string[start:end]
    return start + len(bare) - len(bare.lstrip(' \t\r\n"=:')), end - len(bare) + len(bare.rstrip(' \t\r\n"'))


def _whole(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """The tokens that the spans stand in. A token is read once, however many spans it holds."""
    reach = 0
    for start, end in sorted(spans):
        if end <= reach:
            continue
        start = max(start, reach)
        while start > reach and text[start - 1] in _LETTERS:
            start -= 1
        reach = match.end() if (match := _TAIL.match(text, end)) else end
        yield start, reach


def _users(text: str) -> list[Span]:
    return [match.span(1) for match in _USER.finditer(text)]


def _web_tokens(text: str) -> Iterator[Span]:
    """Three parts or more between dots, the first of which is a header in JSON."""
    if _BEGUN_JSON in text:
        yield from _whole(text, (span for match in _DOTTED.finditer(text) for span in _headed(match)))


def _headed(match: re.Match[str]) -> Iterator[Span]:
    place = match.start()
    *heads, _ = parts = match[0].split(".")
    for head, rest in zip(heads, parts[1:], strict=True):
        begun = head.find(_BEGUN_JSON)
        for _ in range(4):  # behind a name, such as token_eyJ…, or by chance within a header
            if begun < 0 or not rest:
                break
            if _is_json(head[begun:]):
                yield place + begun, place + len(head) + 1 + len(rest)
                return
            begun = head.find(_BEGUN_JSON, begun + 1)
        place += len(head) + 1


def _is_json(part: str) -> bool:
    bare = part.rstrip("=")
    try:
        return isinstance(json.loads(urlsafe_b64decode(bare + "=" * (-len(bare) % 4))), dict)
    except (ValueError, RecursionError):
        return False


def _key_blocks(text: str) -> Iterator[Span]:
    """The whole block: the detector of private keys names no more than a part of its first line."""
    for pattern in (_KEY_BLOCK, _KEY_BEGUN, _PUTTY):
        yield from (match.span() for match in pattern.finditer(text))
    for match in _KEY_END.finditer(text):  # of a block whose beginning another passage has
        start = match.start()
        while (line := text.rfind("\n", 0, max(0, start - 1)) + 1) < start and _KEY_LINE.fullmatch(text, line, start):
            start = line
        yield start, match.end()


def _assignments(text: str) -> Iterator[Span]:
    """What is assigned to, or compared with, a name such as `db_password`, in quotes and whole."""
    if not _NAMED.search(text):
        return
    for word in _WORD.finditer(text):
        if _NAMED.search(word[0]):
            for pattern in (_ASSIGNED, _ENDED):
                if match := pattern.match(text, word.end()):
                    yield match.span(match.lastgroup or 0)
    for match in _COMPARED.finditer(text):
        start = text.rfind(match[1], 0, match.start()) + 1
        if start and _NAMED.search(match[2]) and "\n" not in text[start : match.start()] and start < match.start():
            yield start, match.start()


def _again(text: str, known: Mapping[str, str]) -> Iterator[tuple[str, Span]]:
    """The same secrets elsewhere in the text; a long one by its beginning, with the rest of its token."""
    begun: dict[str, list[str]] = {}
    for secret in known:
        if len(secret) >= _TELLING:
            begun.setdefault(secret[:_KNOWN_BY], []).append(secret)
    for length in sorted(set(map(len, begun))):
        reach = 0
        for start in range(len(text) - length + 1):
            if start < reach or (secrets := begun.get(text[start : start + length])) is None:
                continue
            held = max(
                (each for each in secrets[:_SAME_BEGINNING] if text.startswith(each, start)), key=len, default=""
            )
            reach = start + (len(held) or length)
            if length == _KNOWN_BY:
                [(_, reach)] = _whole(text, [(start, reach)])
            if length >= _KNOWN_BY // 2 or not _within_word(text, start, reach):
                yield known[held or secrets[0]], (start, reach)


def _within_word(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return before.isalnum() or after.isalnum()
