"""TRL's trainers as a job asks for them."""

from typing import Any
from uuid import uuid4

from tasks.config.training import DpoConfig, OptimizerConfig, SftConfig
from tasks.errors import ModelError
from tasks.training.job import CHECKPOINTS_FOLDER, TrainingJob
from tasks.training.speed import VARLEN, Speed

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
PAIRS_FOLDER = "pairs"
POINTS = 200
"""Points of a loss curve, about."""


def sft_trainer(
    job: TrainingJob, config: SftConfig, model: Any, tokenizer: Any, speed: Speed, callbacks: list[Any]
) -> Any:
    """A trainer over conversations whose loss is on the answers only.

    Raises ModelError where the chat template would train a model that never stops.
    """
    from trl import SFTConfig as TrlSftConfig
    from trl import SFTTrainer

    prepare(model, speed)
    every_answer = marks_answers(tokenizer)
    settings = TrlSftConfig(
        **_common(job, config.training, speed),
        packing=config.training.packing,
        padding_free=config.training.packing,
        assistant_only_loss=every_answer,
        completion_only_loss=not every_answer,
    )
    return SFTTrainer(
        model=model,
        args=settings,
        train_dataset=_conversations(job, every_answer),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def dpo_trainer(
    job: TrainingJob, config: DpoConfig, model: Any, tokenizer: Any, speed: Speed, callbacks: list[Any]
) -> Any:
    """A trainer over pairs. The log-probabilities of the reference are computed once, before the first step."""
    from trl import DPOConfig as TrlDpoConfig
    from trl import DPOTrainer
    from trl.trainer import dpo_trainer as internals

    prepare(model, speed)
    # TRL names the cache of the reference after a hash of all weights, half a minute for 7B; nobody reads it twice
    internals.hash_module = lambda module: uuid4().hex
    settings = TrlDpoConfig(
        **_common(job, config.training, speed),
        loss_type=[config.training.loss],
        beta=config.training.beta,
        label_smoothing=config.training.label_smoothing,
        precompute_ref_log_probs=True,
    )
    return DPOTrainer(
        model=model,
        args=settings,
        train_dataset=_pairs(job),
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def prepare(model: Any, speed: Speed) -> None:
    """Leave out what a loss does not need, and let what is left be compiled where that was decided."""
    from peft.tuners.lora import LoraLayer

    from tasks.training.varlen import score_labelled_tokens, without_padding

    score_labelled_tokens()
    base = model.get_base_model()
    if speed.attention == VARLEN:
        without_padding(base)
    if speed.precision == "bf16":
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.cast_input_dtype_enabled = False  # to fp32, which autocast would at once take back
    if speed.compiled:
        for layer in base.base_model.layers:
            layer.compile(dynamic=True)


def marks_answers(tokenizer: Any) -> bool:
    """Whether every answer of a conversation can be told from the rest, so that all are trained on; else only the last.

    Raises ModelError where the mark leaves out the token that ends an answer.
    """
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers
    from trl.chat_template_utils import is_chat_template_stop_token_trained as stops

    template = None
    if not has_generation_markers(tokenizer.chat_template):
        try:
            template = get_training_chat_template(tokenizer)
        except ValueError:
            return False  # a template that nobody has marked
    if not stops(tokenizer, template):
        raise ModelError(
            "the chat template's {% generation %} mark leaves out the token that ends an answer, so the model would "
            "never learn to stop: move the mark's end behind that token"
        )
    return True


def _conversations(job: TrainingJob, every_answer: bool) -> Any:
    rows = _rows(job, ["messages"])
    if every_answer:
        return rows
    return rows.map(
        lambda row: {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}, remove_columns=["messages"]
    )


def _pairs(job: TrainingJob) -> Any:
    """In a file of the job's folder: beside it TRL's first process puts the reference, where the others look for it."""
    from datasets import Dataset

    return Dataset.from_parquet(
        str(job.train), columns=["prompt", "chosen", "rejected"], cache_dir=str(job.folder / PAIRS_FOLDER)
    )


def _rows(job: TrainingJob, columns: list[str]) -> Any:
    import pyarrow.parquet as pq
    from datasets import Dataset

    return Dataset(pq.read_table(job.train, columns=columns))  # in memory: no cache outlives the process


def _common(job: TrainingJob, training: OptimizerConfig, speed: Speed) -> dict[str, Any]:
    machine = job.config.machine
    return {
        "output_dir": str(job.folder / CHECKPOINTS_FOLDER),
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps or -1,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": SCHEDULES[training.schedule],
        "warmup_steps": training.warmup,  # a fraction is a share of the steps
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_gradient,
        "per_device_train_batch_size": job.rows_at_once,
        "gradient_accumulation_steps": job.accumulation,
        "max_length": training.max_length,
        "seed": training.seed,
        "data_seed": training.seed,
        "bf16": speed.precision == "bf16",
        "use_cpu": not speed.on_gpu,
        "gradient_checkpointing": job.recompute,
        "use_liger_kernel": speed.liger,
        "logging_steps": 1 / POINTS,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it would put the mean in the place of a loss that is no number
        "save_strategy": "no",  # `Watch` decides
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": speed.on_gpu,
        "ddp_find_unused_parameters": False,
        **({"fsdp": True, "fsdp_config": {"version": 2}} if machine.fsdp and machine.processes > 1 else {}),
    }
