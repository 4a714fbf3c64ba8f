"""Preference optimisation: pairs of answers become a new version of an adapter, which goes live if it is worth it."""

from prefect import flow

from flows.finetuning import fine_tune
from tasks.config.training import DpoConfig
from tasks.records import Finetune


@flow(name="finetune-dpo", flow_run_name="prefer {config.name}")
def finetune_dpo(config: DpoConfig) -> Finetune:
    """Teach a model which of two answers is better: check the pairs, train a LoRA adapter, score it, and register it.

    Args:
        config: What to train on which pairs, how, and what the adapter must show.
    """
    return fine_tune(config)
