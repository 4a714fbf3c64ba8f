"""Supervised fine-tuning: examples become a new version of an adapter, which goes live if it is worth it."""

from prefect import flow

from flows.finetuning import fine_tune
from tasks.config.training import SftConfig
from tasks.records import Finetune


@flow(name="finetune-sft", flow_run_name="fine-tune {config.name}")
def finetune_sft(config: SftConfig) -> Finetune:
    """Teach a model how to answer: check the examples, train a LoRA adapter, score it, and register it.

    Args:
        config: What to train on which examples, how, and what the adapter must show.
    """
    return fine_tune(config)
