"""What a registered version is to MLflow: the file itself is copied into the version and run from there.

So it imports nothing of this project but the entry point, and a version outlives changes to this file.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class EntryPointModel(PythonModel):
    """Strings in, what the entry point's callable makes of them out.

    ``entry_point`` (``package.module:function``) takes the manifest and, by name, the paths of the version's other
    files, and returns ``answer(texts: list[str], **params) -> list``, one JSON-like item a text.
    """

    def load_context(self, context: PythonModelContext) -> None:
        files = dict(context.artifacts)
        manifest = json.loads(Path(files.pop("manifest")).read_text(encoding="utf-8"))
        module, _, function = context.model_config["entry_point"].partition(":")
        self.answer = getattr(importlib.import_module(module), function)(manifest, **files)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[Any]:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        return self.answer(model_input.iloc[:, 0].tolist(), **given)


set_model(EntryPointModel())
