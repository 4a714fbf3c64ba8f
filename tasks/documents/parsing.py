"""From the bytes of a file to markdown-like text, or to a sentence that says why not."""

import datetime
import io
import re
import zipfile
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any

from tasks.documents.anchors import take_off_anchors
from tasks.documents.headings import find_headings
from tasks.errors import ParseError
from tasks.records import ParsedDocument

PARSER_VERSION = f"3 kreuzberg {version('kreuzberg')} trafilatura {version('trafilatura')}"
"""Part of every document's recipe: text made by another version of a converter is made again."""

MARKDOWN = {".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd"}
TEXT = {".txt", ".text", ".rst", ".adoc", ".asciidoc", ".org", ".log"}
HTML = {".html", ".htm", ".xhtml"}
CONVERTED = {
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xls": "application/vnd.ms-excel",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".ipynb": "application/x-ipynb+json",
    ".epub": "application/epub+zip",
    ".rtf": "application/rtf",
    ".msg": "application/vnd.ms-outlook",
    ".xml": "application/xml",
    ".json": "application/json",
}
PROSE = {".pdf", ".docx", ".pptx", ".ipynb", ".epub", ".rtf"}
"""Formats whose first heading is a title, not the name of a sheet or a key."""
ZIPPED = {".docx", ".pptx", ".xlsx", ".epub"}
IMAGES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".svg", ".heic", ".ico"}
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".jar"}

MAX_UNPACKED = 500_000_000
"""Bytes. More than any office file that a person wrote unpacks to."""
MAX_RATIO = 200
"""Unpacked to packed. Sheets full of zeros reach about 100; a zip bomb 1000 and more."""
LOST_SHARE = 0.01
"""Share of a PDF's letters that its layout reading may drop before the plain reading is used."""
FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
"""To be matched at the very start: as in Jekyll, not even an empty line may stand above it."""
TABLE_RULE = re.compile(r"^[ \t]*\|?(?:[ \t]*:?-{3,}:?[ \t]*\|)+(?:[ \t]*:?-{3,}:?)?[ \t]*$", re.MULTILINE)
NO_TITLE = re.compile(
    r"\W*(untitled( document)?|anonymous|unspecified|(microsoft word|powerpoint) .*)?\W*", re.IGNORECASE
)


def parse(name: str, data: bytes) -> ParsedDocument:
    """Convert one file, chosen by the extension of its name. Raises `ParseError` with the reason."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in MARKDOWN:
        return _markdown(_decode(data))
    if suffix in TEXT or not suffix:
        return ParsedDocument(_decode(data))
    if suffix in HTML:
        return _html(_decode(data))
    if suffix in CONVERTED:
        return _convert(suffix, data)
    if suffix in IMAGES:
        raise ParseError("an image: it holds no text that can be read without OCR")
    if suffix in ARCHIVES:
        raise ParseError("an archive: unpack it and index the files inside")
    raise ParseError(f"files of the kind {suffix} are not read: convert it, or exclude it in the configuration")


def _decode(data: bytes) -> str:
    """Text with line ends as ``\\n``, from UTF-8, a byte order mark, or the encoding the bytes suggest."""
    from charset_normalizer import from_bytes

    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return _lines(data.decode(encoding, "replace"))
    if b"\0" in data:
        raise ParseError("not text: it holds binary data")
    try:
        return _lines(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        guess = from_bytes(data).best()
    if guess is None:
        raise ParseError("not text, or in a character encoding that cannot be told: save it as UTF-8")
    return _lines(str(guess))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _markdown(text: str) -> ParsedDocument:
    body, metadata = _front_matter(text)
    body = _short_rules(body)
    return ParsedDocument(body, _first_heading(body), metadata)


def _short_rules(text: str) -> str:
    """Table rules cut to ``---``: every dash is a token of its own, and wide tables have hundreds."""
    return TABLE_RULE.sub(lambda rule: re.sub(r"-{4,}", "---", rule[0]), text)


def _front_matter(text: str) -> tuple[str, dict[str, Any]]:
    """The text and its front matter. What looks like it but is no YAML mapping stays in the text."""
    found = FRONT_MATTER.match(text)
    metadata = _yaml(found[1]) if found else None
    if not found or not metadata or not isinstance(metadata, dict):
        return text, {}
    return text[found.end() :].strip(), metadata


def _yaml(text: str) -> Any:
    """What a text says in YAML, JSON-safe; None where it is none."""
    import yaml

    try:
        return _json_safe(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):  # whatever a tag's reader raises
        return None


def _json_safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_json_safe(item) for item in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _first_heading(text: str) -> str | None:
    return next((heading.title for heading in find_headings(text) if heading.title), None)


def _html(text: str) -> ParsedDocument:
    """The article of a page, without navigation and comments."""
    import trafilatura

    body, front = _front_matter(text)
    if not body.strip():
        return ParsedDocument("", None, front)
    tree = trafilatura.load_html(body)
    metadata = {} if tree is None else _page_metadata(tree)
    article = "" if tree is None else _article(tree)
    if not article:
        raise ParseError("no article found in this HTML: only navigation, scripts or fragments")
    return ParsedDocument(article, metadata.get("title"), metadata | front)


def _article(tree: Any) -> str:
    import trafilatura

    take_off_anchors(tree)
    found = trafilatura.extract(tree, output_format="markdown", include_comments=False, favor_recall=True)
    return re.sub(r"[ \t]+$", "", found or "", flags=re.MULTILINE).strip()


def _page_metadata(tree: Any) -> dict[str, Any]:
    """What a page says of itself; by the ids of its elements, too."""
    import trafilatura

    # A date in the prose is not the page's date.
    found = trafilatura.extract_metadata(tree, date_config={"extensive_search": False})
    kept = {key: getattr(found, key) for key in ("title", "author", "date", "description", "tags")}
    return {key: value for key, value in (kept | {"language": tree.get("lang")}).items() if value}


def _convert(suffix: str, data: bytes) -> ParsedDocument:
    """Office documents, PDFs and the like, by kreuzberg; OCR stays off, it would need language data."""
    from kreuzberg import KreuzbergError

    if suffix in ZIPPED:
        _check_archive(data)
    try:
        text, properties = _extract(data, CONVERTED[suffix])
        if suffix == ".pdf":
            text = _complete(text, data)
    except KreuzbergError as error:
        raise ParseError(_why(suffix, str(error))) from error
    text = _clean(text)
    title = str(properties.get("subject" if suffix == ".msg" else "title") or "").strip()
    if NO_TITLE.fullmatch(title):
        title = (_first_heading(text) or "") if suffix in PROSE else ""
    return ParsedDocument(text, title or None, _properties(suffix, properties))


def _extract(data: bytes, kind: str, form: str = "markdown") -> tuple[str, dict[str, Any]]:
    from kreuzberg import (
        ConcurrencyConfig,
        ContentFilterConfig,
        ExtractionConfig,
        PdfConfig,
        extract_bytes_sync,
    )

    config = ExtractionConfig(
        use_cache=False,
        disable_ocr=True,  # type: ignore[call-arg]  # missing from the package's stubs alone
        output_format=form,
        # By default the top and bottom of every page, and lines that repeat, are taken for furniture.
        pdf_options=PdfConfig(top_margin_fraction=0.0, bottom_margin_fraction=0.0),
        content_filter=ContentFilterConfig(include_headers=True, include_footers=True, strip_repeating_text=False),
        concurrency=ConcurrencyConfig(max_threads=1),
    )
    result = extract_bytes_sync(data, kind, config)
    return result.content, {**result.metadata}


def _complete(text: str, data: bytes) -> str:
    """A PDF's text by its layout, unless that lost lines which the plain reading of the same file has."""
    if not text.strip():
        raise ParseError("no text layer: a scan or a drawing, which would need OCR")
    plain, _ = _extract(data, CONVERTED[".pdf"], "plain")
    if _letters(text) < (1 - LOST_SHARE) * _letters(plain):
        text = plain
    words = re.findall(r"\w+", text)
    if len(words) > 20 and sum(len(word) == 1 and word.isalpha() for word in words) > len(words) / 3:
        raise ParseError("a damaged text layer: its letters stand apart, so that no word can be found")
    return text


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


def _check_archive(data: bytes) -> None:
    """Refuse, before anything is unpacked, a file that would unpack to an absurd size."""
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise ParseError("encrypted with a password, or in an older format than its name says")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            encrypted = any(member.flag_bits & 1 for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ParseError("damaged or cut short: it cannot be unpacked") from error
    if encrypted:
        raise ParseError("encrypted with a password")
    if unpacked > MAX_UNPACKED or (unpacked > MAX_UNPACKED / 20 and unpacked > MAX_RATIO * len(data)):
        raise ParseError(
            f"unpacks to {unpacked / 1e6:,.0f} MB from {len(data) / 1e6:,.1f} MB: "
            "it looks like a zip bomb and was not opened"
        )


def _why(suffix: str, said: str) -> str:
    if "password" in said.lower() or "encrypt" in said.lower():
        return "encrypted with a password"
    first = " ".join(said.removeprefix("ParsingError: ").split())[:200]
    return f"damaged or cut short: it cannot be read as {suffix.removeprefix('.').upper()} ({first})"


def _clean(text: str) -> str:
    """Converted text with pictures replaced by their descriptions, and no spaces at the ends of lines."""
    text = re.sub(r"\\?!\[([^\]]*)\]\([^)\n]*\)", r"\1", _lines(text))
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)).strip()
    return _short_rules(text)


def _properties(suffix: str, found: dict[str, Any]) -> dict[str, Any]:
    """The properties that say something of a document. A notebook's language is a programming language."""
    kept = {
        "date": found.get("modified_at") or found.get("created_at"),
        "authors": [name for name in found.get("authors") or () if not NO_TITLE.fullmatch(name)],
        "language": None if suffix == ".ipynb" else found.get("language"),
    }
    return {key: _json_safe(value) for key, value in kept.items() if value}
