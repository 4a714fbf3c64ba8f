"""The ids that page generators make from headings, taken off before the article is looked for.

trafilatura drops an element whose id speaks of furniture: a section ``navigation-lights`` as navigation. Nothing of
an id stands in a page's text. What is real navigation is still known by its element, its role, its class, or by the
id of a container that no heading explains; and the article is still found by an id such as ``content``.
"""

import re
from typing import Any

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
CONTAINERS = {
    *("body", "div", "main", "article", "section", "header", "nav", "aside", "footer", "ul", "ol", "table", "form")
}
SECTION = re.compile(r"(?<!\S)(section|sect\d|level\d)(?!\S)")
"""A class that Sphinx, docutils, DocBook, Asciidoctor or pandoc gives to a section."""


def take_off_anchors(tree: Any) -> None:
    """Remove from a page, in place, every id that does not name a part of its layout."""
    for element in [element for element in tree.iter("*") if "id" in element.attrib]:
        if element.tag not in CONTAINERS or _is_section(element):
            del element.attrib["id"]


def _is_section(container: Any) -> bool:
    """Whether a container is one section: its id repeats its heading, or its kind says so and no page begins in it."""
    heading = _heading(container)
    if heading is not None and _repeats(container.get("id"), heading):
        return True
    by_kind = container.tag == "section" or SECTION.search(container.get("class", ""))
    return bool(by_kind) and (heading is None or heading.tag != "h1")


def _heading(container: Any) -> Any | None:
    """The first heading in a container; where it has none, the one right above it."""
    before = container.getprevious()
    above = before if before is not None and before.tag in HEADINGS else None
    return next(container.iter(*HEADINGS), above)


def _repeats(anchor: str, heading: Any) -> bool:
    """Whether an id ends as the heading's own id or its words do, such as ``outline-authors`` above "2. Authors"."""
    words = re.sub(r"^[\W\d_]+", "", heading.text_content())
    return any(slug and _slug(anchor).endswith(slug) for slug in (_slug(heading.get("id", "")), _slug(words)))


def _slug(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
