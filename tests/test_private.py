"""Secrets and personal data: what is found, and what is harmless and must not be."""

import json

import pytest

from tasks.private import find_private
from tests.realdata import SHARED, needs_real_data


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to Ada.Lovelace+x@mail.lovelace.co.uk.", "e-mail address"),
        ("My IBAN is DE89 3704 0044 0532 0130 00, thanks", "IBAN"),
        ("GB82WEST12345698765432.", "IBAN"),
        ("card 4111 1111 1111 1111", "card number"),
        ("card 378282246310005, please", "card number"),
        ("My SSN: 123-45-6789", "social security number"),
        ("Call +44 20 7946 0958", "telephone number"),
        ("Call (415) 555-2671 now", "telephone number"),
        ("key AKIA" + "IOSFODNN7EXAMPLE", "AWS Access Key"),
        ("token ghp_" + "a1B2" * 9, "GitHub Token"),
        ("-----BEGIN RSA " + "PRIVATE KEY-----", "Private Key"),
        ("db_password = 'correct horse'", "Secret Keyword"),
        ("https://ada:secret-word@host/x", "Basic Auth Credentials"),
    ],
)
def test_what_is_private_is_named_by_its_kind(text: str, kind: str) -> None:
    assert find_private(f"Hello,\n{text}\nBye") == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "My order A-20931 of 2026-03-01 has not come, invoice 2026-1042-117.",
        "Write to help@example.com or ada@mail.example.org, host db.test: x@db.test",
        "IBAN DE88 3704 0044 0532 0130 00",  # wrong check digits
        "parcel 4111 1111 1111 1112, article 123-4567-8901234",
        "000-12-3456 and 666-45-6789",  # never issued
        "3+5 = 8, (3+5) * 12345678 = 98765424",
        "order 4155552671, tracking 123456789012, version 1.2.3.4",
        "I forgot my password: what do I do? Is there a 'secret' key?",
        "@ada said so, at 10:30",
        "",
    ],
)
def test_harmless_text_is_left_alone(text: str) -> None:
    assert find_private(text) == []


@pytest.mark.realdata
@needs_real_data
def test_no_question_or_solution_of_public_data_is_taken_for_private() -> None:
    questions = (SHARED / "banking77" / "train.csv").read_text(encoding="utf-8").splitlines()
    problems = [json.loads(line) for line in (SHARED / "gsm8k" / "test.jsonl").open(encoding="utf-8")]
    texts = [*questions, *(problem[key] for problem in problems for key in ("question", "answer"))]
    assert len(texts) > 12_000
    assert {text: kinds for text in texts if (kinds := find_private(text))} == {}
