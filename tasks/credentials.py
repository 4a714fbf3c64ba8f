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
Expression = tuple[str, re.Pattern[str]]
"""What a text has in it wherever the pattern finds something, and the pattern."""

NOISY = {"Base64 High Entropy String", "Hex High Entropy String", "Public IP (ipv4)"}
"""Detectors of detect-secrets that take quoted words and version numbers for secrets."""
WINDOW, OVERLAP = 1024, 256
"""Characters of a text that an expression reads at a time, and of those that the next time has as well: more than any
expression needs to know a token by."""

_PREFIXES = (  # as their makers publish them, so that scanners know a token; detect-secrets 1.5 lacks these
    ("Anthropic Key", "sk-ant-", r"[\w-]{20}"),
    ("Artifactory Credentials", "AKC", r"[A-Za-z0-9]{50}"),
    ("Databricks Token", "dapi", r"[0-9a-f]{32}"),
    ("DigitalOcean Token", "doo_v1_ dop_v1_ dor_v1_", r"[0-9a-f]{64}"),
    ("Docker Token", "dckr_pat_ dckr_oat_", r"[\w-]{20}"),
    ("GitHub Token", "github_pat_", r"\w{22}"),
    (
        "GitLab Token",
        "glpat- gldt- glft- glsoat- glrt- glrtr- glcbt- glimt- glptt- glagent- gloas- glffct-",
        r"[\w-]{20}",
    ),
    ("Google Key", "AIza", r"[\w-]{35}"),
    ("Google Key", "GOCSPX- ya29.", r"[\w-]{20}"),
    ("Grafana Token", "glsa_", r"[A-Za-z0-9]{32}"),
    ("Groq Key", "gsk_", r"[A-Za-z0-9]{40}"),
    ("Hugging Face Token", "hf_ api_org_", r"[A-Za-z0-9]{30}"),
    ("NPM tokens", "npm_", r"[A-Za-z0-9]{36}"),
    ("NPM tokens", "_authToken=", r"(npm_|[A-Fa-f0-9-]{36}|[\w+/]{20,}+)"),
    ("OpenAI Token", "sk-proj- sk-svcacct- sk-admin- sk-or-v1-", r"[\w-]{20}"),
    ("OpenAI Token", "sk-", r"[A-Za-z0-9]{32}"),
    ("PyPI Token", "pypi-", r"[\w-]{50}"),
    ("Shopify Token", "shpat_ shpca_ shppa_ shpss_", r"[0-9a-fA-F]{32}"),
    ("Slack Token", "xox", r"[a-z](?:\.xox[a-z])?-(?=[\w-]{0,20}\d)[\w-]{20}"),
    ("Slack Token", "xapp-", r"\d-[\w-]{20}"),
    ("Stripe Access Key", "sk_live_ rk_live_", r"\w{16}"),
    ("Stripe Access Key", "whsec_", r"[\w+/]{24,}+"),
    ("Tandem Key", "tandem_", r"[0-9a-f]{8}_[\w-]{20}"),
    ("Vault Token", "hvs. hvb. hvr.", r"[\w-]{24}"),
)
"""Kind, prefixes, and what follows at least."""
_NEEDS = {
    "Artifactory Credentials": re.compile("AKC|AP[0-9A-F]"),
    **dict.fromkeys(
        ("Cloudant Credentials", "IBM COS HMAC Credentials", "IBM Cloud IAM Key", "SoftLayer Credentials"),
        re.compile(r"[A-Za-z0-9_-]{24}"),
    ),
}
"""What a text has at least where a slow expression of detect-secrets finds something in it."""
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
_ESCAPE = re.compile(r"\\[nrtbf]|%[0-9A-Fa-f]{2}")
_BASE64 = r"/(?=[A-Za-z0-9/]{0,88}[+=]|(?=[a-z0-9_-]{0,40}[A-Z])(?=[A-Z0-9_-]{0,40}[a-z])[A-Za-z_-]{0,40}\d[\w-]{4})"
"""A slash within base64, by what follows it, rather than one before the next part of a path."""
_TAIL = re.compile(
    # words of base64url; what stands between two of them, also in base64 and where it is escaped; padding
    rf"(?:[A-Za-z0-9_-]++|[.~](?=[A-Za-z0-9_-])|\+{{1,3}}(?=[A-Za-z0-9_=/])|{_BASE64}|%[0-9A-Fa-f]{{2}})*+"
    r"(?:={1,3}(?![A-Za-z0-9_=]))?"
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
_NAME_PARTS = ("key", "pass", "pwd", "secret", "contrase")
"""What `_NAMED` cannot do without: the search for it is slow."""
_REST = re.compile(r"[\w-]*+")
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
    expressions: dict[str, list[Expression]] = {
        kind: [
            ("", re.compile(each.pattern.replace(_GAPS, _ONE_WAY), each.flags))
            for each in getattr(detector, "denylist", ())
        ]
        for kind, detector in detectors.items()
        if kind not in NOISY
    }
    expressions["NPM tokens"] = []  # its own takes the rest of the line as well
    for kind, prefixes, rest in _PREFIXES:
        expressions.setdefault(kind, []).extend((prefix, _begins(prefix, rest)) for prefix in prefixes.split())
    found = {kind: _finder(tuple(those), _NEEDS.get(kind)) for kind, those in sorted(expressions.items())}
    named = found["Private Key"]
    return found | {
        "Basic Auth Credentials": _users,
        "JSON Web Token": _web_tokens,
        "Private Key": lambda text: [*_key_blocks(text), *named(text)],
        "Secret Keyword": _assignments,
    }


def _begins(prefix: str, rest: str) -> re.Pattern[str]:
    """A token that begins with the prefix, and no word that ends with it, as `task-` does with `sk-`."""
    own = re.escape(prefix)
    free = rf"(?:(?<![A-Za-z0-9]{own})|(?<=\\[nrtbf]{own})|(?<=%[0-9A-Fa-f]{{2}}{own}))"  # an escape is no word
    return re.compile(rf"{own}{free}(?:{rest})", re.ASCII)


def _finder(expressions: tuple[Expression, ...], needs: re.Pattern[str] | None) -> Find:
    def find(text: str) -> Iterator[Span]:
        if needs and not needs.search(text):
            return iter(())
        fitting = (pattern for literal, pattern in expressions if literal in text)
        return _whole(text, (span for pattern in fitting for span in _matches(pattern, text)))

    return find


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
        begun = start = max(start, reach)
        while start > reach and text[start - 1] in _LETTERS:
            start -= 1
        if start and (escape := _ESCAPE.match(text, start - 1)) and escape.end() <= begun:
            start = escape.end()
        reach = match.end() if (match := _TAIL.match(text, end)) else end
        yield start, reach


def _users(text: str) -> list[Span]:
    return [match.span(1) for match in _USER.finditer(text)]


def _web_tokens(text: str) -> Iterator[Span]:
    """Two parts or more between dots, the first of which is a header in JSON: signed, or encrypted."""
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
    if "PRIVATE KEY" not in text and "PuTTY" not in text:
        return
    for pattern in (_KEY_BLOCK, _KEY_BEGUN, _PUTTY):
        yield from (match.span() for match in pattern.finditer(text))
    for match in _KEY_END.finditer(text):  # of a block whose beginning another passage has
        start = match.start()
        while (line := text.rfind("\n", 0, max(0, start - 1)) + 1) < start and _KEY_LINE.fullmatch(text, line, start):
            start = line
        yield start, match.end()


def _assignments(text: str) -> Iterator[Span]:
    """What is assigned to, or compared with, a name such as `db_password`, in quotes and whole."""
    plain = text.casefold()
    if not any(part in plain for part in _NAME_PARTS):
        return
    reach = 0
    for name in _NAMED.finditer(text):
        if name.start() < reach:
            continue
        reach = _REST.match(text, name.end()).end()  # type: ignore[union-attr]  # it matches nothing as well
        for pattern in (_ASSIGNED, _ENDED):
            if match := pattern.match(text, reach):
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
