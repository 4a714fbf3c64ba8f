"""Every format gives its text or a sentence that says why not; metadata follows the source's rules."""

import datetime
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from lxml import html

from tasks.config.index import SourceConfig
from tasks.documents.anchors import take_off_anchors
from tasks.documents.metadata import describe
from tasks.documents.parsing import TABLE_RULE, parse
from tasks.errors import ConfigError, ParseError
from tasks.records import ParsedDocument, SourceFile
from tests.realdata import SHARED, needs_real_data


class TestText:
    def test_front_matter_is_metadata_and_not_text(self) -> None:
        parsed = parse("a.md", b"---\ntitle: Leave\ntags: [hr, rules]\ndate: 2024-03-01\n---\n\n# Rest\n\nSleep.\n")
        assert parsed.text == "# Rest\n\nSleep."
        assert parsed.title == "Rest"
        assert parsed.metadata == {"title": "Leave", "tags": ["hr", "rules"], "date": "2024-03-01"}

    @pytest.mark.parametrize(
        "text",
        [
            "---\ntitle: a: b: c\n---\nBody.",
            "---\n- a\n- list\n---\nBody.",
            "---\n\nA paragraph between two rules.\n\n---\nBody.",
            "---\nNever closed.\nBody.",
            "---js\n{}\n---\nBody.",
            "{\nno json\n}\nBody.",
            "\n---\ntitle: Leave\n---\nBody.",
            "----\ntitle: Leave\n----\nBody.",
            "--- title: Leave\n---\nBody.",
            "---\ntitle: Leave\n---- \nBody.",
            "---\n---\nBody.",
            "---\nrules: !!bool perhaps\n---\nBody.",
            f"---\nrules: {'[' * 5000}\n---\nBody.",
            "---\nrules: &rules [*rules]\n---\nBody.",
        ],
    )
    def test_what_is_no_proper_front_matter_stays_text(self, text: str) -> None:
        parsed = parse("a.md", text.encode())
        assert (parsed.text, parsed.metadata) == (text, {})

    @pytest.mark.parametrize(
        "data", [b"\xef\xbb\xbf---\r\ntitle: Leave\r\n--- \r\nSleep.", b"---\ntitle: Leave\n...\nSleep."]
    )
    def test_front_matter_may_follow_a_byte_order_mark_and_end_with_dots(self, data: bytes) -> None:
        assert parse("a.md", data) == ParsedDocument("Sleep.", None, {"title": "Leave"})

    def test_rules_below_front_matter_lose_nothing(self) -> None:
        body = "Watch.\n\n---\n\nContact: the duty officer\n\n---\n\nLog."
        assert parse("a.md", f"---\ntitle: Rules\n---\n{body}\n".encode()) == ParsedDocument(
            body, None, {"title": "Rules"}
        )

    @example("# Watch\n\n---\n\nContact: the duty officer\n\n---\n\nLog.\n")
    @example("# Quay\n\n```yaml\nkind: Namespace\n---\nkind: Secret\n---\nkind: Deployment\n```\n")
    @example("Quay\n---\nkind: Secret\n---\n")
    @example("\n---\nkind: Secret\n---\n")
    @given(
        st.lists(st.sampled_from(["---", "--- ", "...", "", "key: value", "# Title", "Words."]) | st.text()).map(
            "\n".join
        )
    )
    def test_a_page_that_does_not_begin_with_three_dashes_is_kept_whole(self, text: str) -> None:
        text = re.sub("\r\n?", "\n", text.removeprefix("\ufeff"))
        assume(text.split("\n")[0].rstrip() != "---" and "\0" not in text and not TABLE_RULE.search(text))
        parsed = parse("a.md", text.encode())
        assert (parsed.text, parsed.metadata) == (text, {})

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            ("Grüße".encode("utf-8-sig"), "Grüße"),
            ("Grüße".encode("utf-16"), "Grüße"),
            ("Der Bär aß süße Äpfel über den Dächern von Köln. ".encode("latin-1") * 5, "Der Bär aß süße Äpfel"),
            ("佐藤太郎は東京に住んでいます。".encode("cp932") * 20, "佐藤太郎は東京に住んでいます。"),
            (b"one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
        ],
    )
    def test_text_is_read_in_the_encoding_it_was_written_in(self, data: bytes, text: str) -> None:
        assert parse("a.txt", data).text.startswith(text)

    def test_an_empty_file_is_an_empty_document(self) -> None:
        for name in ("a.md", "a.txt", "a.html"):
            assert parse(name, b"") == ParsedDocument("")

    def test_a_file_without_extension_is_text_if_it_reads_as_text(self) -> None:
        assert parse("docs/LICENSE", b"Do what you like.").text == "Do what you like."
        with pytest.raises(ParseError, match="not text"):
            parse("docs/core", b"\x7fELF\0\0\1\2")

    def test_the_rules_of_wide_tables_are_cut_short(self) -> None:
        dashes = "-" * 300
        text = f"| a | b |\n| {dashes} | :{dashes}: |\n| {dashes} | 1 |\n\n```\n{dashes}\n```"
        assert parse("a.md", text.encode()).text == text.replace(f"| {dashes} | :{dashes}: |", "| --- | :---: |")

    def test_the_first_heading_is_the_title_without_its_markup(self) -> None:
        assert parse("a.md", b"Intro\n\n```\n# no\n```\n\n## The *real* [title](x.md)\n").title == "The real title"


PAGE = """<html lang="de-AT"><head><title>Urlaub</title><meta name="date" content="2024-05-06"></head><body>
<nav><ul><li><a href="/">Start</a></li><li><a href="/impressum">Impressum</a></li></ul></nav>
<main><article><h1>Urlaub nehmen</h1><p>Wer Urlaub nehmen will, fragt zuerst das Team und dann die Leitung, und
zwar rechtzeitig.</p><h2>Fristen</h2><p>Der Antrag ist zwei Wochen vorher zu stellen, damit alle planen können.</p>
<table><tr><th>Tage</th><th>Frist</th></tr><tr><td>1</td><td>ein Tag</td></tr></table></article></main>
<footer>Cookies und Datenschutz</footer></body></html>"""
NAMES = [
    "Authors",
    "Comments",
    "Cookies",
    "Hidden files",
    "Navigation lights",
    "Related work",
    "Shared moorings",
    "Tags",
]
SECTIONS = [
    "<section id='{slug}'><h2>{name}</h2><p>{rule}</p></section>",
    "<section id='authors-{slug}'><h2>{name}</h2><p>{rule}</p></section>",
    "<div class='section' id='share-{slug}'><h2>{name}</h2><p>{rule}</p></div>",
    "<div class='section level2' id='{slug}'><h2>{name}</h2><p>{rule}</p></div>",
    "<div id='{slug}'><h2>2. {name}</h2><p>{rule}</p></div>",
    "<div id='outline-{slug}'><h2 id='{slug}'>§ {name}</h2><div id='text-{slug}'><p>{rule}</p></div></div>",
    "<h2 id='{slug}'>{name}</h2><p id='{slug}-1'>{rule}</p>",
    "<h2><span id='{slug}'>{name}</span></h2><p>{rule}</p>",
]
"""As Sphinx, docutils, pandoc, R Markdown, Org and MediaWiki write them."""


class TestHtml:
    def test_the_article_is_kept_and_the_navigation_is_not(self) -> None:
        parsed = parse("a.html", PAGE.encode())
        assert "# Urlaub nehmen" in parsed.text
        assert "## Fristen" in parsed.text
        assert "| 1 | ein Tag |" in parsed.text
        assert "Impressum" not in parsed.text
        assert "Cookies" not in parsed.text
        assert "---\n" not in parsed.text.replace("|---|---|\n", "")
        assert (parsed.metadata["date"], parsed.metadata["language"]) == ("2024-05-06", "de-AT")

    @pytest.mark.parametrize("form", SECTIONS)
    def test_a_section_is_kept_whatever_its_heading_is_called(self, form: str) -> None:
        rules = {
            name: f"Whoever asks for {name.lower()} signs the list with date, name and the number." for name in NAMES
        }
        sections = [
            form.format(slug=name.lower().replace(" ", "-"), name=name, rule=rule) for name, rule in rules.items()
        ]
        page = PAGE.replace("<table>", f"{''.join(sections)}<table>")
        text = parse("a.html", page.encode()).text
        assert [name for name, rule in rules.items() if f"{name}\n\n{rule}" not in text] == []
        assert "Impressum" not in text
        assert "Cookies und Datenschutz" not in text

    @pytest.mark.parametrize(
        "furniture",
        [
            "<div id='sidebar'><h3>Neues</h3><p>{text}</p></div>",
            "<div id='site-navigation'><p>{text}</p></div>",
            "<div role='navigation'><p>{text}</p></div>",
            "<section class='cookie-banner' id='consent'><h2>Consent</h2><p>{text}</p></section>",
            "<ul id='menu'><li>{text}</li></ul>",
            "<nav id='fristen'><h2>Fristen</h2><p>{text}</p></nav>",
            "<aside><p>{text}</p></aside>",
        ],
    )
    def test_furniture_is_known_by_element_role_class_and_the_id_of_its_container(self, furniture: str) -> None:
        text = "Wir verwenden auf diesen Seiten allerlei, das nicht zum Urlaub gehört."
        page = PAGE.replace("<main>", f"{furniture.format(text=text)}<main>")
        assert text not in parse("a.html", page.encode()).text

    def test_an_id_that_marks_the_article_or_its_author_is_used(self) -> None:
        page = PAGE.replace("<main><article>", "<div>").replace(
            "</article></main>", "<p id='author'>Rosa Lind</p></div>"
        )
        tree = html.fromstring(page.replace("<div>", "<div id='content'>"))
        assert parse("a.html", html.tostring(tree)).metadata["author"] == "Rosa Lind"
        take_off_anchors(tree)
        assert tree.xpath("//@id") == ["content"]

    def test_dashes_within_a_page_are_no_front_matter(self) -> None:
        code = "kind: Namespace\n---\nkind: Secret\n---\nkind: Deployment"
        page = PAGE.replace("<table>", f"<pre>{code}</pre><table>")
        parsed = parse("a.html", page.encode())
        assert "# Urlaub nehmen" in parsed.text
        assert code in parsed.text
        assert "kind" not in parsed.metadata

    def test_a_page_may_have_front_matter(self) -> None:
        plain = parse("a.html", PAGE.encode())
        parsed = parse("a.html", f"---\nlayout: page\n---\n{PAGE}".encode())
        assert parsed == replace(plain, metadata=plain.metadata | {"layout": "page"})

    def test_a_page_without_article_says_so(self) -> None:
        with pytest.raises(ParseError, match="no article found"):
            parse("a.html", b"<html><body><script>go()</script></body></html>")


def pdf(encrypted: bool = False) -> bytes:
    """A page that says "Hello reader", written by hand; with `encrypted`, one that wants a password."""
    content = b"BT /F1 24 Tf 72 700 Td (Hello reader) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Filter /Standard /V 1 /R 2 /P -44 /O <%s> /U <%s> >>" % (b"11" * 32, b"22" * 32),
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    lock = b"/Encrypt 5 0 R /ID [<00> <00>]" if encrypted else b""
    return out + table + b"trailer << /Size 6 /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF" % (lock, len(out))


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"language_info": {"name": "python"}},
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Opening hours\n", "\n", "Nine to five."]},
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {},
            "execution_count": 1,
            "source": ["print(17 - 9)"],
            "outputs": [{"output_type": "stream", "name": "stdout", "text": ["8\n"]}],
        },
    ],
}
OFFICE = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
RELATIONS = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
TYPES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
SHEET = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
SLIDE = 'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
DRAWING = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'


def related(**targets: str) -> str:
    """The part that names the others: kind and path."""
    links = (f'<Relationship Id="{kind}" Type="{TYPES}/{kind}" Target="{path}"/>' for kind, path in targets.items())
    return f"<Relationships {RELATIONS}>{''.join(links)}</Relationships>"


TINY: dict[str, tuple[bytes, list[str]]] = {
    "hours.csv": (b"day,from\nMonday,9\n", ["| day | from |", "| Monday | 9 |"]),
    "hours.tsv": (b"day\tfrom\nMonday\t9\n", ["| day | from |", "| Monday | 9 |"]),
    "hours.ipynb": (json.dumps(NOTEBOOK).encode(), ["# Opening hours", "Nine to five.", "print(17 - 9)", "8"]),
    "hours.docx": (
        zipped(
            {
                "_rels/.rels": related(officeDocument="word/document.xml"),
                "word/document.xml": f"<w:document {WORD}><w:body><w:p><w:r><w:t>Nine to five.</w:t></w:r></w:p>"
                "</w:body></w:document>",
            }
        ),
        ["Nine to five."],
    ),
    "hours.xlsx": (
        zipped(
            {
                "_rels/.rels": related(officeDocument="xl/workbook.xml"),
                "xl/workbook.xml": f'<workbook {SHEET} {OFFICE}><sheets><sheet name="Hours" sheetId="1" '
                'r:id="worksheet"/></sheets></workbook>',
                "xl/_rels/workbook.xml.rels": related(worksheet="worksheets/sheet1.xml"),
                "xl/worksheets/sheet1.xml": f'<worksheet {SHEET}><sheetData><row r="1"><c r="A1" t="inlineStr"><is>'
                '<t>Monday</t></is></c><c r="B1"><v>9</v></c></row></sheetData></worksheet>',
            }
        ),
        ["## Hours", "| Monday | 9 |"],
    ),
    "hours.pptx": (
        zipped(
            {
                "_rels/.rels": related(officeDocument="ppt/presentation.xml"),
                "ppt/presentation.xml": f'<p:presentation {SLIDE} {OFFICE}><p:sldIdLst><p:sldId id="256" r:id="slide"/>'
                "</p:sldIdLst></p:presentation>",
                "ppt/_rels/presentation.xml.rels": related(slide="slides/slide1.xml"),
                "ppt/slides/slide1.xml": f"<p:sld {SLIDE} {DRAWING}><p:cSld><p:spTree><p:sp><p:txBody><a:p><a:r>"
                "<a:t>Nine to five.</a:t></a:r></a:p></p:txBody></p:sp></p:spTree></p:cSld></p:sld>",
            }
        ),
        ["Nine to five."],
    ),
    "hours.epub": (
        zipped(
            {
                "mimetype": "application/epub+zip",
                "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
                'version="1.0"><rootfiles><rootfile full-path="book.opf" '
                'media-type="application/oebps-package+xml"/></rootfiles></container>',
                "book.opf": '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/><manifest>'
                '<item id="one" href="one.xhtml" media-type="application/xhtml+xml"/></manifest>'
                '<spine><itemref idref="one"/></spine></package>',
                "one.xhtml": '<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>Opening hours</h1>'
                "<p>Nine to five.</p></body></html>",
            }
        ),
        ["# Opening hours", "Nine to five."],
    ),
}


@pytest.mark.parametrize("name", TINY)
def test_a_file_of_every_converted_format_gives_its_text(name: str) -> None:
    data, phrases = TINY[name]
    found = parse(name, data).text
    assert [phrase for phrase in phrases if phrase not in found] == []


class TestReasons:
    def test_a_pdf_is_read_and_an_encrypted_or_damaged_one_says_why_not(self) -> None:
        assert parse("a.pdf", pdf()).text == "Hello reader"
        with pytest.raises(ParseError, match="encrypted with a password"):
            parse("a.pdf", pdf(encrypted=True))
        for data in (pdf()[:40], pdf()[100:300], b"", b"%PDF-1.4 nothing"):
            with pytest.raises(ParseError, match="damaged or cut short: it cannot be read as PDF"):
                parse("a.pdf", data)

    def test_a_zip_bomb_is_refused_before_it_is_unpacked(self) -> None:
        bomb = zipped({"word/document.xml": b"\0" * 30_000_000})
        with pytest.raises(ParseError, match=r"unpacks to 30 MB from 0\.0 MB: it looks like a zip bomb"):
            parse("a.docx", bomb)

    def test_damaged_encrypted_and_mislabelled_office_files_say_so(self) -> None:
        with pytest.raises(ParseError, match="damaged or cut short: it cannot be unpacked"):
            parse("a.xlsx", b"PK\3\4 and no more")
        with pytest.raises(ParseError, match="encrypted with a password, or in an older format"):
            parse("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
        with pytest.raises(ParseError, match="cannot be read as DOCX"):
            parse("a.docx", zipped({"hello.txt": b"no document"}))

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("a.JPG", "an image"), ("a.zip", "an archive"), ("a.exe", r"files of the kind \.exe are not read")],
    )
    def test_what_holds_no_text_says_so(self, name: str, reason: str) -> None:
        with pytest.raises(ParseError, match=reason):
            parse(name, b"\x89\0\1")


READ = {
    "formats/LICENSE": ["MIT License"],
    "formats/RECEIPT-2024-TXN-98765_retail_purchase.pdf": ["TECHMART ELECTRONICS", "4567 Innovation Blvd"],
    "formats/REPAIR-2022-INV-001_multipage.pdf": ["ZAVA AUTO REPAIR", "GRAND TOTAL", "Bruce Wayne"],
    "formats/SPARSE-2024-INV-1234_borderless_table.pdf": ["INVENTORY RECONCILIATION REPORT", "SKU-8847"],
    "formats/equations.docx": [r"\frac{m\lambda }{a}"],
    "formats/masterformat_partial_numbering.pdf": ["The intent of this Request for Proposal"],
    "formats/movie-theater-booking-2024.pdf": ["STARLIGHT CINEMAS", "2024-12-5678"],
    "formats/ocr/docx_complex_layout.docx": ["| Authentication | Active |"],
    "formats/ocr/docx_multipage.docx": ["This is the first paragraph on page 1."],
    "formats/ocr/pdf_complex_layout.pdf": ["Complex Layout Document"],
    "formats/ocr/pdf_multipage.pdf": ["Page 3 - Image at top", "Main content of page 2 starts here."],
    "formats/ocr/pptx_complex_layout.pptx": ["Our products lead the market"],
    "formats/ocr/xlsx_complex_layout.xlsx": ["| Retention Rate | 92% |"],
    "formats/rlink.docx": ["Testing Linked Images"],
    "formats/test.docx": ["AutoGen: Enabling Next-Gen LLM Applications", "# Introduction"],
    "formats/test.epub": ["# Chapter 1: Test Content", "**test**"],
    "formats/test.json": ["5b64c88c-b3c3-4510-bcb8-da0b200602d8"],
    "formats/test.pdf": ["Large language models (LLMs) are becoming a crucial building block"],
    "formats/test.pptx": ["AutoGen is an open-source framework", "1b92870d-e3b5-4e65-8153-919f4ff45592"],
    "formats/test.rtf": ["This is a Sample RTF File"],
    "formats/test.xls": ["## Sheet1", "| 89 | 82 | 100 | 12 |"],
    "formats/test.xlsx": ["## Sheet1", "| 89 | 82 | 100 | 12 |"],
    "formats/test_blog.html": ["Large language models (LLMs) are powerful tools"],
    "formats/test_mskanji.csv": ["| 名前 | 年齢 | 住所 |", "| 髙橋淳 | 35 | 名古屋 |"],
    "formats/test_notebook.ipynb": ["# Test Notebook", 'print("markitdown")'],
    "formats/test_outlook_msg.msg": ["This is the body of the test email message"],
    "formats/test_rss.xml": ["The Official Microsoft Blog", "Ignite 2024"],
    "formats/test_wikipedia.html": ["Microsoft entered the operating system (OS) business in 1980"],
    "formats/test_with_comment.docx": ["AutoGen: Enabling Next-Gen LLM Applications"],
    "handbook/downloads/EFT_Enrollment_Form.pdf": ["ELECTRONIC FUNDS TRANSFER (EFT) ENROLLMENT FORM"],
    "handbook/downloads/TEMPLATE_Internal_kickoff_agenda.docx": ["All 18F AMs are expected to hold a team kickoff"],
    "handbook/downloads/TEMPLATE_Project_README.docx": ["All 18F teams are expected to maintain a README"],
    "handbook/downloads/TEMPLATE_Risk_tracker.xlsx": ["All 18F teams are expected to track risks"],
    "handbook/downloads/TEMPLATE_Team_charter.docx": ["All 18F teams are expected to have a team charter"],
    "handbook/downloads/TEMPLATE_Weekly_ship_template.docx": ["send weekly ship updates"],
}
REFUSED = {
    "formats/MEDRPT-2024-PAT-3847_medical_report_scan.pdf": "no text layer",
    "formats/ocr/pdf_scanned_invoice.pdf": "no text layer",
    "formats/random.bin": "files of the kind .bin are not read",
    "formats/test.jpg": "an image",
    "formats/test_llm.jpg": "an image",
    "formats/test_files.zip": "an archive",
    "handbook/downloads/my-form.pdf": "a damaged text layer",
}


@pytest.mark.realdata
@needs_real_data
class TestRealFiles:
    @pytest.mark.parametrize("name", ["rules.md", "k8s.md"])
    def test_dashes_further_down_a_real_page_lose_nothing(self, name: str) -> None:
        data = (SHARED / "field/frontmatter" / name).read_bytes()
        parsed = parse(name, data)
        assert (parsed.text, parsed.metadata) == (data.decode(), {})

    def test_every_section_of_a_real_page_is_kept(self) -> None:
        page = (SHARED / "field/html/rules_page.html").read_text()
        text = parse("rules_page.html", page.encode()).text
        rules = re.findall(r"<p>(Rule [^<]+)</p>", page)
        assert len(rules) == 42
        assert [rule for rule in rules if rule not in text] == []

    def test_every_file_is_in_one_of_the_two_tables(self) -> None:
        folders = [SHARED / "formats", SHARED / "handbook" / "downloads"]
        there = {str(path.relative_to(SHARED)) for folder in folders for path in folder.rglob("*") if path.is_file()}
        assert {name for name in there if "expected_outputs" not in name} == {*READ, *REFUSED}

    @pytest.mark.parametrize("name", READ)
    def test_a_real_file_gives_its_text(self, name: str) -> None:
        parsed = parse(name, (SHARED / name).read_bytes())
        for phrase in READ[name]:
            assert phrase in parsed.text
        assert not parsed.text.startswith("---")
        assert "![](" not in parsed.text

    @pytest.mark.parametrize("name", REFUSED)
    def test_a_real_file_without_text_says_why(self, name: str) -> None:
        with pytest.raises(ParseError, match=re.escape(REFUSED[name])):
            parse(name, (SHARED / name).read_bytes())

    def test_random_bytes_under_a_text_s_name_are_refused(self) -> None:
        with pytest.raises(ParseError, match="not text"):
            parse("random.md", (SHARED / "formats/random.bin").read_bytes())

    def test_navigation_of_a_real_page_is_left_out(self) -> None:
        text = parse("a.html", (SHARED / "formats/test_wikipedia.html").read_bytes()).text
        assert "Privacy policy" not in text
        assert "Contact us" not in text
        assert len(text) < 100_000

    @pytest.mark.parametrize(
        "name", [name for name in READ if name.endswith(".pdf") and re.search(r"\d{4}|test\.pdf", name)]
    )
    def test_a_pdf_loses_next_to_no_word_that_another_converter_finds(self, name: str) -> None:
        expected = SHARED / "formats/expected_outputs" / f"{Path(name).stem}.md"
        words = set(re.findall(r"[^\W_]{4,}", expected.read_text()))
        found = parse(name, (SHARED / name).read_bytes()).text
        assert len([word for word in words if word not in found]) <= 0.05 * len(words)


def described(path: str = "guide/leave.md", parsed: ParsedDocument | None = None, **settings: Any) -> dict[str, Any]:
    source = SourceConfig(name="docs", location=".", **settings)
    file = SourceFile(f"docs/{path}", "docs", path, "sha256:0", 1)
    return describe(source, file, parsed or ParsedDocument("Text."))


class TestMetadata:
    def test_a_document_says_its_title_language_tags_and_date(self) -> None:
        front = {"title": "Leave", "language": "de-AT", "tags": "hr, rules", "updated": "1 March 2024"}
        assert described(parsed=ParsedDocument("Text.", "Rest", front), language="en", tags=("handbook", "hr")) == {
            "title": "Leave",
            "tenant": None,
            "language": "de",
            "tags": ("handbook", "hr", "rules"),
            "date": datetime.date(2024, 3, 1),
        }

    def test_without_front_matter_the_heading_then_the_file_name_is_the_title(self) -> None:
        assert described(parsed=ParsedDocument("Text.", "Rest"))["title"] == "Rest"
        assert described()["title"] == "leave"
        assert (
            described(parsed=ParsedDocument("", None, {"name": "X", "title": " "}), title_keys=("title", "name"))[
                "title"
            ]
            == "X"
        )

    def test_a_document_cannot_choose_who_sees_it(self) -> None:
        front = {"tenant": "acme"}
        assert described(parsed=ParsedDocument("Text.", None, front))["tenant"] is None
        assert described(parsed=ParsedDocument("Text.", None, front), tenant="zeta")["tenant"] == "zeta"

    def test_the_tenant_comes_from_the_path_where_a_pattern_says_so(self) -> None:
        pattern = r"^tenants/(?P<tenant>[^/]+)/"
        assert described("tenants/acme/a.md", tenant_pattern=pattern, tenant="all")["tenant"] == "acme"
        assert described("shared/a.md", tenant_pattern=pattern, tenant="all")["tenant"] == "all"

    @pytest.mark.parametrize(
        ("value", "date"),
        [
            ("2024-03-01", datetime.date(2024, 3, 1)),
            ("2024-03-01T10:00:00Z", datetime.date(2024, 3, 1)),
            ("March 1, 2024", datetime.date(2024, 3, 1)),
            ("2024", datetime.date(2024, 1, 1)),
            ("March", None),
            ("soon", None),
            ("2024-13-45", None),
            (["2024-03-01"], None),
            (None, None),
        ],
    )
    def test_a_date_is_read_in_any_spelling_and_never_made_up(self, value: Any, date: datetime.date | None) -> None:
        assert described(parsed=ParsedDocument("Text.", None, {"date": value}))["date"] == date

    def test_a_date_in_the_path_is_found_by_its_pattern(self) -> None:
        pattern = r"(?P<year>\d{4})/(?P<month>\d\d)-(?P<day>\d\d)"
        assert described("2023/04-05-minutes.md", date_pattern=pattern)["date"] == datetime.date(2023, 4, 5)
        assert described("2023/44-05-minutes.md", date_pattern=pattern)["date"] is None
        assert described("minutes.md", date_pattern=pattern)["date"] is None

    def test_a_pattern_that_cannot_work_is_a_clear_error(self) -> None:
        with pytest.raises(ConfigError, match=r"docs: tenant_pattern '\(' is no regular expression"):
            described(tenant_pattern="(")
        with pytest.raises(ConfigError, match=r"lacks the group \(\?P<tenant>…\)"):
            described(tenant_pattern="x")
