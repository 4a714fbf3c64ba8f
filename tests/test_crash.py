"""SIGKILL at every step of a night: the live version answers as before, and the next run puts things right."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("prefect")
ROOT = Path(__file__).resolve().parents[1]
NEW_PAGES = 12

# where the process dies, and how many of the new passages were embedded by then
POINTS = [
    ("tasks.index.cache:VectorCache.add", "after", 2, 2 * 4),
    ("tasks.index.store:IndexStore.replace", "before", 1, NEW_PAGES),
    ("tasks.index.store:IndexStore.replace", "after", 1, NEW_PAGES),
    ("tasks.index.store:IndexStore.maintain", "after", 1, NEW_PAGES),
    ("tasks.index.store:IndexStore.tag", "after", 1, NEW_PAGES),
    ("mlflow:MlflowClient.create_model_version", "before", 1, NEW_PAGES),
    ("mlflow:MlflowClient.create_model_version", "after", 1, NEW_PAGES),
    ("mlflow:MlflowClient.set_registered_model_alias", "before", 1, NEW_PAGES),
    ("mlflow:MlflowClient.set_registered_model_alias", "after", 1, NEW_PAGES),
]
