"""The README's pictures, taken from a real run in headless Chromium: `make pictures`.

    python -m tests.pictures [--demo data/demo]

The home of `tandem demo`, which is run first where there is none, is served by its own MLflow and Prefect while the
pictures are taken. Colours are counted down to 256, which nobody sees and halves the files.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from mlflow.entities import Run
from PIL import Image
from playwright.sync_api import Page, expect
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.config.settings import Home
from tasks.registry.connection import connect
from tasks.services import down
from tests.browser import browser_page, open_form
from tests.installation import tandem
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "data" / "pictures"
COLOURS = 256
CURVES = ("entropy", "gradient_norm", "learning_rate", "loss", "token_accuracy", "tokens")
SETTLED_MS = 3000
"""Charts draw themselves after their page is loaded."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "data" / "demo", help="The home of `tandem demo`.")
    home = Home(parser.parse_args().demo.resolve())
    if not home.mlruns.exists():
        run("demo", home=Home(ROOT))
    with served(home) as (prefect, mlflow), browser_page() as page:
        take_prefect(page, prefect)
        take_mlflow(page, mlflow, home)
    keep_figure("finetune_scores", home, "adapter-support", "scores.png")
    keep_figure("causes", home, "diagnosis-helpdesk", "causes.png")
    run("advise", "conf/cases/brand_support.yaml", home=home)  # its curves cross; the demo's own case is too small
    keep_figure("advice_costs", home, "advice-brand_support", "costs.png")


def run(*arguments: object, home: Home) -> str:
    """What the command prints."""
    done = tandem(home, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def served(home: Home) -> Iterator[tuple[str, str]]:
    """The addresses of Prefect and MLflow over this home, while the block lasts."""
    try:
        up = run("up", "--mlflow-port", free_port(), "--prefect-port", free_port(), "--json", home=home)
        address = {service["name"]: service["address"] for service in json.loads(up)["services"]}
        with temporary_settings({PREFECT_API_URL: f"{address['prefect']}/api"}):
            yield address["prefect"], address["mlflow"]
    finally:
        down(home)


def take_prefect(page: Page, prefect: str) -> None:
    open_form(page, prefect, "finetune-sft")
    expect(page.get_by_role("spinbutton", name="Learning rate")).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 1230})
    take(page, "finetune_form")
    page.set_viewport_size({"width": 1400, "height": 1150})
    start = page.url.partition("/deployments")[0]  # of the version of the UI that was led to
    page.goto(f"{start}/artifacts/artifact/{artifact('reindex-samples', 'passed the gate')}")
    expect(page.get_by_role("heading", name="Documents and passages")).to_be_visible()
    take(page, "report")


def take_mlflow(page: Page, mlflow: str, home: Home) -> None:
    page.set_viewport_size({"width": 1410, "height": 1150})  # the aliases have no room in less
    page.goto(f"{mlflow}/#/models/samples")
    page.get_by_role("button", name="Close").click()  # the assistant's, which MLflow opens beside the first page
    expect(page.get_by_text("@ champion")).to_be_visible()
    take(page, "registry")
    page.set_viewport_size({"width": 1280, "height": 1000})
    run = first_run(home, "adapter-support").info
    page.goto(f"{mlflow}/#/experiments/{run.experiment_id}/runs/{run.run_id}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill(f"^({'|'.join(CURVES)})$")
    expect(page.get_by_text(CURVES[-1]).first).to_be_visible()
    take(page, "finetune_curves")


def take(page: Page, name: str) -> None:
    page.wait_for_timeout(SETTLED_MS)
    keep(page.screenshot(), name)


def keep(picture: bytes, name: str) -> None:
    file = PICTURES / f"{name}.png"
    Image.open(BytesIO(picture)).convert("RGB").quantize(COLOURS).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1000} kB", file=sys.stderr)


def artifact(key: str, text: str) -> str:
    """The id of the newest artifact with this key that says this."""
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC)
    return str(next(each.id for each in found if text in str(each.data)))


def first_run(home: Home, experiment: str) -> Run:
    client = connect(home)
    found = client.get_experiment_by_name(experiment)
    assert found, f"{home.root} has no experiment {experiment}: run `tandem demo`"
    return client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"], max_results=1)[0]


def keep_figure(name: str, home: Home, experiment: str, figure: str) -> None:
    """A figure of the first run, as the run has it."""
    run = first_run(home, experiment)
    keep(Path(connect(home).download_artifacts(run.info.run_id, figure)).read_bytes(), name)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
