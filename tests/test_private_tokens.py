"""Secrets go as whole tokens, with nothing of the text around them; and no text takes long to be read."""

import random
import string
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from tasks.answering.citations import read_sentences
from tasks.answering.filters import redact
from tasks.answering.orders import gives_orders
from tasks.answering.service.keys import add_key
from tasks.credentials import OVERLAP, WINDOW
from tasks.private import find_private

HEX, ALNUM = "0123456789abcdef", string.ascii_letters + string.digits
_chance = random.Random(7)


def some(count: int, letters: str = ALNUM) -> str:
    return "".join(_chance.choices(letters, k=count))


TOKENS = {
    "classic": ("GitHub Token", "ghp_" + some(36)),
    "longer": ("GitHub Token", "gho_" + some(90)),
    "fine-grained": ("GitHub Token", f"github_pat_{some(22)}_{some(59)}"),
    "personal": ("GitLab Token", "glpat-" + some(20)),
    "routable": ("GitLab Token", f"glpat-{some(27)}.01.{some(9)}"),
    "job": ("GitLab Token", f"glcbt-64_{some(20)}"),
    "npm": ("NPM tokens", "npm_" + some(36)),
    "pypi": ("PyPI Token", "pypi-AgEIcHlwaS5vcmc" + some(120, ALNUM + "-_")),
    "stripe": ("Stripe Access Key", "sk_live_" + some(99)),
    "sendgrid": ("SendGrid API Key", f"SG.{some(22)}.{some(43)}"),
    "slack": ("Slack Token", f"xoxb-{some(12, '123')}-{some(12, '123')}-{some(24)}"),
    "discord": ("Discord Bot Token", f"M{some(23)}.{some(6)}.{some(38)}"),
    "mailchimp": ("Mailchimp Access Key", some(32, HEX) + "-us12"),
    "aws": ("AWS Access Key", "AKIA" + some(16, string.ascii_uppercase)),
    "azure": ("Azure Storage Account access key", f"AccountKey={some(40)}/+{some(44)}=="),
    "jwt": ("JSON Web Token", f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.{some(20)}-_{some(21)}"),
    "encrypted": ("JSON Web Token", f"eyJhbGciOiJSU0EtT0FFUCJ9.{some(40)}.{some(16)}.{some(50)}.{some(22)}"),
    "openai": ("OpenAI Token", f"sk-proj-{some(48, ALNUM + '-_')}A"),
    "anthropic": ("Anthropic Key", f"sk-ant-api03-{some(93)}AA"),
    "google": ("Google Key", "AIza" + some(35)),
    "hugging face": ("Hugging Face Token", "hf_" + some(34)),
    "artifactory": ("Artifactory Credentials", "AKC" + some(60)),
}
CARRIERS = (
    "The token is {} and must be rotated.",
    "Use {}.\nThen stop.",
    'key: "{}", says Ada',
    "{}",
    "(see {}), or `{}`!",
    "https://host.org/?t={}&user=bob",
    "<{}>, [{}] and **{}**",
    r'{"said": "so:\n{}\n"}',
    "?q=a%3D{}",
)


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_goes_as_a_whole_and_the_words_around_it_stay(name: str) -> None:
    kind, token = TOKENS[name]
    mark = f"‹{kind.replace(' ', '_')}›"
    for carrier in CARRIERS:
        assert redact(carrier.replace("{}", token)) == (carrier.replace("{}", mark), (kind,))


def test_a_key_of_the_service_is_known(tmp_path: Path) -> None:
    _, secret = add_key(tmp_path / "keys.json", "robot", None, ("chat",))
    assert redact(f"Its key is {secret}.") == ("Its key is ‹Tandem_Key›.", ("Tandem Key",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://bob:s3cr3t@db.org/x", "https://‹Basic_Auth_Credentials›db.org/x"),
        ("redis://:p!w$d@cache.org:6379/0", "redis://‹Basic_Auth_Credentials›cache.org:6379/0"),
        ("https://bob:pa/ss@db.org/x", "https://‹Basic_Auth_Credentials›db.org/x"),
        (f"https://{TOKENS['classic'][1]}@github.com/a", "https://‹GitHub_Token›@github.com/a"),
        (f"https://x:{TOKENS['classic'][1]}@github.com/a", "https://‹Basic_Auth_Credentials›github.com/a"),
        (f"https://l.org/{TOKENS['jwt'][1]}/s/642947709/br", "https://l.org/‹JSON_Web_Token›/s/642947709/br"),
        (f"{TOKENS['classic'][1]}/Ab3dE6gH9+x/y==.", "‹GitHub_Token›."),
        (f"{TOKENS['hugging face'][1]}/Ab3dE6gH9.", "‹Hugging_Face_Token›."),
        ("//r.org/:_authToken=npm_" + "a1" * 18 + " and more", "//r.org/:_authToken=‹NPM_tokens› and more"),
        ('pwd = "it\'s \\"my\\" secret" ok', 'pwd = "‹Secret_Keyword›" ok'),
        (
            'a_secret = "one two"; db-key: "three"; say one two',
            'a_secret = "‹Secret_Keyword›"; db-key: "‹Secret_Keyword›"; say ‹Secret_Keyword›',
        ),
        ('if ("hunter2" == my_password)', 'if ("‹Secret_Keyword›" == my_password)'),
        ('private_key "something";', 'private_key "‹Secret_Keyword›";'),
        ("password = 'sunflower77', xsunflower77x", "password = '‹Secret_Keyword›', x‹Secret_Keyword›x"),
        (
            "password = 'sun7', sun7 and sunflower sun77",
            "password = '‹Secret_Keyword›', ‹Secret_Keyword› and sunflower sun77",
        ),
        (
            "PuTTY-User-Key-File-2: ssh-rsa\nComment: me\nPrivate-Lines: 1\nAAAAIB+/=\nPrivate-MAC: ab\nKeep it.",
            "‹Private_Key›\nKeep it.",
        ),
        ("...\nMIIEowIBAAKC+/\nabCD==\n-----END RSA " + "PRIVATE KEY-----\nKeep it.", "...\n‹Private_Key›\nKeep it."),
        (
            "---- BEGIN SSH2 ENCRYPTED " + "PRIVATE KEY ----\nab\n---- END SSH2 ENCRYPTED PRIVATE KEY ----\nKeep.",
            "‹Private_Key›\nKeep.",
        ),
    ],
)
def test_what_is_known_by_what_stands_beside_it_goes_as_a_whole(text: str, said: str) -> None:
    assert redact(text)[0] == said


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:4873/@scope/pkg, http://host:8080, mail@home",
        "//registry.npmjs.org/:_authToken=${NPM_TOKEN}",
        "eyJ is how a JSON Web Token begins, AKIA how a key does, ghp_ and github_pat_ how tokens do",
        "tandem_requests_total, tandem_limited_total, task-force, sk-learn, hf_hub_download, npm_config_registry",
        "xoxb-your-bot-token-goes-here",
        "eyJ0aGlz.is.no",
        "the secret: it's a 'secret' that \"nobody\" knows",
    ],
)
def test_what_looks_like_a_token_and_is_none_stays(text: str) -> None:
    assert find_private(text) == []


@pytest.mark.parametrize("name", ["classic", "sendgrid", "slack", "azure", "anthropic"])
def test_a_token_across_the_edge_of_a_window_goes_as_a_whole(name: str) -> None:
    kind, token = TOKENS[name]
    for before in (*range(WINDOW - OVERLAP - 120, WINDOW - OVERLAP + 3), *range(WINDOW - 120, WINDOW + 3)):
        text = "so " * (before // 3) + "x " * (before % 3) + token + " so" * 1000
        assert redact(text)[0] == text.replace(token, f"‹{kind.replace(' ', '_')}›")


def test_a_secret_behind_a_long_text_is_found() -> None:
    token = TOKENS["classic"][1]
    assert redact("password" * 3000 + f" {token}")[0] == "password" * 3000 + " ‹GitHub_Token›"


# Time

LONG = 12_000
HOSTILE = (
    *("password", "secret_", "key=", "a", "0", "é", "_", "-", " ", "\n", ". ", "-\n", "a_", "a@", "a.", "a@b.", "+1 "),
    *("1-", "(1", "1 2-3.", "4111-", "DE12", "(202) 555-0143 ", "+49 30 901820 ", "DE89 3704 0044 0532 0130 00 "),
    *("-----BEGIN ", "-----BEGIN RSA " + "PRIVATE KEY-----\n", "://", "://a:", "//", "eyJ", "eyJ.", "eyJa_", "AKIA"),
    *("sk-", "sk-aaaaaaaaaaaaaaaaaaaa", "ghp_", "xoxb-1-", "glagent-", "awskey", "AP0", "T3BlbkFJ", "Mx", "AC"),
    *('"', "password='", 'password="a', "\"' == password", "![", "![a](https:", "[1", "[1] ", "[1,", "system:\n"),
    *("as an ai ", "reply ", "ignore ", "if you are an ", "?!", "Dr. "),
)
BEGUN = {"key and spaces": "key", "cl_key and spaces": "cl_key", "password and spaces": "password", "mark": "so it is"}


def _repeated(part: str, length: int) -> str:
    return (part * (length // len(part) + 1))[:length]


def _mixed(letters: str, length: int) -> str:
    return "".join(random.Random(3).choices(letters, k=length))


def _passwords(length: int) -> str:
    return "".join(f'password="{"a" * 20}{n}" ' for n in range(length // 30))


TEXTS: dict[str, Callable[[int], str]] = {
    **{part: lambda length, part=part: _repeated(part, length) for part in HOSTILE},
    **{name: lambda length, begun=begun: begun + " " * length + "[1" for name, begun in BEGUN.items()},
    "one line of base64": lambda length: _mixed(ALNUM + "+/", length),
    "digits and what stands between them": lambda length: _mixed("0123456789 -.()/", length),
    "many passwords": _passwords,
    "a number": lambda length: f"[{'1' * length}]",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("read", [redact, gives_orders, lambda text: read_sentences(text, 3)])
def test_no_text_takes_time_that_grows_with_its_square(name: str, read: Callable[[str], Any]) -> None:
    once, twice = (_seconds(read, TEXTS[name], length) for length in (LONG, 2 * LONG))
    assert twice < 1
    assert twice < 3 * once + 0.1


def _seconds(read: Callable[[str], Any], make: Callable[[int], str], length: int) -> float:
    """Of the processor, the better of two, each over a text that nobody remembers."""
    seconds = []
    for trial in range(2):
        text = f"{trial}: {make(length)}"
        begun = process_time()
        read(text)
        seconds.append(process_time() - begun)
    return min(seconds)
