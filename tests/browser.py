"""Debian's Chromium, headless, as a person uses it who starts a run in the Prefect UI."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
LOADED = 60_000
"""Longest wait for a page, on a machine that is busy with other things, ms."""


@contextmanager
def browser_page() -> Iterator[Page]:
    """A page in a browser of its own, closed with it."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to be sandboxed as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        expect.set_options(timeout=LOADED)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1024})
            page.set_default_timeout(LOADED)
            yield page
        finally:
            browser.close()


def open_form(page: Page, prefect: str, deployment: str) -> None:
    """From the start page of the Prefect UI to the form of the deployment."""
    page.goto(prefect)
    page.get_by_role("link", name="Deployments").click()
    page.get_by_role("link", name=deployment, exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    page.wait_for_load_state("networkidle")  # what is typed before the form has its defaults is lost


def choose(page: Page, field: str, choice: str) -> None:
    page.get_by_role("button", name=f"Select {field}").click()
    page.get_by_role("option", name=choice, exact=True).click()


def fill_number(page: Page, field: str, number: float) -> None:
    page.get_by_role("spinbutton", name=field).fill(f"{number:g}")


def submit(page: Page) -> None:
    page.get_by_role("button", name="Submit").click()


def start(page: Page) -> None:
    """Submit, and follow the link to the run."""
    submit(page)
    page.get_by_role("link", name="View run").click()


def open_artifact(page: Page, key: str) -> None:
    """From the page of a flow run to the text of its artifact."""
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_role("link", name=key).click()
    page.locator("a[href*='/artifacts/artifact/']").click()
