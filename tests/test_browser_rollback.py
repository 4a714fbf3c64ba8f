"""Whoever is on call rolls back in Prefect's page: a name, a reason, submit; then the version before answers."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser import CHROMIUM, browser_page, open_form, start
from tests.command import three_nights
from tests.homes import copy_home
from tests.installation import Installation, installed, tandem

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium"),
    pytest.mark.long,
    pytest.mark.services,
    pytest.mark.timeout(900),
]
TEA = ("search", "docs", "how long does green tea steep", "-k", 1)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A home in which version 3 of docs is live, and the form of the rollback."""
    folder = tmp_path_factory.mktemp("on-call")
    copy_home(three_nights(), folder / "home")
    with installed(folder, {"name": "rollback", "flow": "flows/rollback.py:rollback"}) as installation:
        yield installation


@pytest.fixture
def form(here: Installation) -> Iterator[Page]:
    """The form, with a name and a reason in it, and everything else as it opens."""
    with browser_page() as page:
        open_form(page, here.address("prefect"), "rollback")
        page.get_by_role("textbox", name="Name", exact=True).fill("docs")
        page.get_by_role("textbox", name="Reason", exact=True).fill("seventy was right")
        yield page


def test_a_dry_run_that_is_asked_for_says_so_and_moves_nothing(here: Installation, form: Page) -> None:
    expect(form.get_by_text("Only prove that the version loads and answers; move nothing.")).to_be_visible()
    form.get_by_role("switch", name="Dry run").check()
    start(form)
    expect(form.get_by_text("Dry run: would go from 3 to 2").first).to_be_visible(timeout=300_000)
    assert "eighty" in tandem(here.home, *TEA).stdout


def test_a_name_and_a_reason_are_enough_to_answer_from_the_version_before(here: Installation, form: Page) -> None:
    assert "eighty" in tandem(here.home, *TEA).stdout
    start(form)
    expect(form.get_by_text("Rolled back to v2", exact=True).first).to_be_visible(timeout=300_000)
    assert "seventy" in tandem(here.home, *TEA).stdout


def test_prefect_s_page_asks_no_server_but_its_own(here: Installation) -> None:
    own = here.address("prefect").removeprefix("http")  # over http and ws
    let_through: list[str] = []
    with browser_page() as page:
        page.on("response", lambda response: let_through.append(response.url))
        page.on("requestfailed", lambda request: request.failure == "csp" or let_through.append(request.url))
        open_form(page, here.address("prefect"), "rollback")
        page.wait_for_timeout(3000)
    assert [url for url in let_through if not url.startswith(("data:", "blob:")) and own not in url] == []
    assert len(let_through) > 10
