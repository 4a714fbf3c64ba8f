"""A person starts a fine-tune from its form in the Prefect UI and looks at what came of it in MLflow's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page, expect
from prefect import get_client

from tests.browser import CHROMIUM, browser_page, choose, fill_number, open_artifact, open_form, start, submit
from tests.installation import Installation, installed
from tests.tiny_models import write_conf, write_data

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium"),
    pytest.mark.long,
    pytest.mark.services,
    pytest.mark.timeout(1200),
]

CONFIG = {
    "name": "first",
    "base": "first",
    "dataset": "first",
    "held_out_share": 0.25,
    "checks": {"min_rows": 10, "near_duplicate": 1},
    "training": {"max_length": 64, "learning_rate": 0.01, "batch_rows": 8},
    "machine": {"precision": "fp32"},
    "scoring": {"scores": [], "general_text": "text.jsonl", "general_choices": "choices.jsonl"},
    "gate": {"min_rows": 5, "max_forgotten": 10, "max_general_loss": 1},
    "promote": "auto",
}
"""What the form opens with."""


@pytest.fixture(scope="module")
def here(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The deployment ``finetune-sft``, and a conf/ with two base models and two data sets to choose from."""
    folder = tmp_path_factory.mktemp("browser")
    conf = write_conf(folder / "conf", tiny_model)
    (conf / "datasets" / "rows.yaml").write_text(f"format: messages\nsources: [{folder / 'rows.jsonl'}]\n")
    for kind, name in (("models", "tiny"), ("datasets", "rows")):
        (conf / kind / "first.yaml").write_text((conf / kind / f"{name}.yaml").read_text())
    write_data(folder)
    general = {name: str(folder / CONFIG["scoring"][name]) for name in ("general_text", "general_choices")}
    config = CONFIG | {"scoring": CONFIG["scoring"] | general}
    (folder / "sft.yaml").write_text(yaml.safe_dump(config))
    deployment = {
        "name": "finetune-sft",
        "flow": "flows/finetune_sft.py:finetune_sft",
        "config": str(folder / "sft.yaml"),
        "work_pool": "gpu",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_CONF", str(conf))
        with installed(folder, deployment) as installation:
            yield installation


@pytest.fixture
def page() -> Iterator[Page]:
    with browser_page() as page:
        yield page


def count_runs() -> int:
    with get_client(sync_client=True) as client:
        return len(client.read_flow_runs())


def test_a_wrong_value_is_named_in_the_form_and_starts_nothing(here: Installation, page: Page) -> None:
    open_form(page, here.address("prefect"), "finetune-sft")
    fill_number(page, "Learning rate", 5)
    submit(page)
    rate = page.get_by_role("spinbutton", name="Learning rate")
    assert rate.evaluate("field => field.validationMessage") == "Value must be less than or equal to 1."
    fill_number(page, "Learning rate", 0.01)
    fill_number(page, "Epochs", 0)
    submit(page)
    expect(page.get_by_text("0 is less than or equal to the minimum of 0", exact=True)).to_be_visible()
    expect(page.get_by_text("Validation failed for field 'config.training.epochs'")).to_be_visible()
    assert count_runs() == 0


def test_a_fine_tune_started_in_the_form_ends_as_a_version_in_mlflow(here: Installation, page: Page) -> None:
    open_form(page, here.address("prefect"), "finetune-sft")
    page.get_by_role("textbox", name="Name", exact=True).fill("browser")
    choose(page, "Base", "tiny")
    choose(page, "Dataset", "rows")
    page.get_by_role("tab", name="int").click()  # the steps have no limit as long as this says None
    page.get_by_role("tabpanel", name="int").get_by_role("spinbutton").fill("7")
    start(page)
    expect(page.get_by_text("Promoted v1", exact=True).first).to_be_visible(timeout=800_000)
    run = page.url
    open_artifact(page, "finetune-browser")
    expect(page.get_by_role("heading", name="browser: Version 1 passed the gate")).to_be_visible()
    expect(page.get_by_role("row", name="steps 7")).to_be_visible()
    page.goto(run)
    open_artifact(page, "mlflow-browser")
    page.get_by_role("link", name="browser version 1 in MLflow").click()

    expect(page).to_have_url(f"{here.address('mlflow')}/#/models/browser/versions/1")
    expect(page.get_by_role("heading", name="Version 1", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="browser: Version 1 passed the gate")).to_be_visible()
    expect(page.get_by_role("status", name="champion")).to_be_visible()
    page.get_by_role("link", name="fine-tune browser").click()  # the version's source run
    expect(page.get_by_role("heading", name="fine-tune browser")).to_be_visible()
    expect(page.get_by_role("link", name="browser, v1")).to_be_visible()
