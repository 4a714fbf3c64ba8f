"""Makes the tiny base model: ``python -m flows.build_base_model conf/base_model/tiny.yaml``."""

import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from tasks.config.base_model import BaseModelBuildConfig
from tasks.config.loading import load_config
from tasks.training.base_model import Trained, learn_tokenizer, read_texts, save, train

STEPS_A_LINE = 50


@flow(name="build-base-model", flow_run_name="build {config.folder}")
def build_base_model(config: BaseModelBuildConfig) -> Trained:
    """Learn a vocabulary, train a model from nothing, and write it with its tokenizer and card."""
    logger = get_run_logger()

    def on_step(step: int, model: Any, loss: float) -> None:
        if step % STEPS_A_LINE == 0:
            logger.info("step %d of %d, loss %.3f", step, config.steps, loss)

    texts, questions = read_texts(config.texts)
    tokenizer = learn_tokenizer(texts, config)
    model, trained = train(config, tokenizer, texts, questions, on_step)
    save(config, model, tokenizer, trained)
    return trained


if __name__ == "__main__":
    build_base_model(load_config(Path(sys.argv[1]), BaseModelBuildConfig))
