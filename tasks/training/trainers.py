"""TRL's trainers as a job asks for them."""

from typing import Any
from uuid import uuid4

from tasks.config.training import DpoConfig, OptimizerConfig, SftConfig
from tasks.training.chat import exchange, lessons
from tasks.training.job import CHECKPOINTS_FOLDER, TrainingJob
from tasks.training.speed import VARLEN, Speed

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
PAIRS_FOLDER = "pairs"
NO_LABEL = -100
"""In the place of a token that is read and not learned."""
POINTS = 200
"""Points of a loss curve, about."""


def sft_trainer(
    job: TrainingJob, config: SftConfig, model: Any, tokenizer: Any, rows: Any, speed: Speed, callbacks: list[Any]
) -> Any:
    """A trainer over the rows of `written_lessons`, whose loss is on the answers only."""
    from trl import SFTConfig as TrlSftConfig
    from trl import SFTTrainer

    prepare(model, speed)
    settings = TrlSftConfig(
        **_common(job, config.training, speed),
        packing=config.training.packing,
        padding_free=config.training.packing,
    )
    return SFTTrainer(
        model=model,
        args=settings,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=callbacks,
    )


def dpo_trainer(
    job: TrainingJob, config: DpoConfig, model: Any, tokenizer: Any, speed: Speed, callbacks: list[Any]
) -> Any:
    """A trainer over pairs. The log-probabilities of the reference are computed once, before the first step.

    Raises ModelError where an answer would not continue its prompt.
    """
    from trl import DPOConfig as TrlDpoConfig
    from trl import DPOTrainer
    from trl.trainer import dpo_trainer as internals
    from trl.trainer.utils import global_then_local_main_first

    class PairsTrainer(DPOTrainer):
        """Reads the tokens that scoring and the service would; TRL's own reading begins where the two differ."""

        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            with global_then_local_main_first():
                columns = dataset.column_names
                written = dataset.map(_write_pair, fn_kwargs={"tokenizer": processing_class}, remove_columns=columns)
                return written.filter(lambda pair: len(pair["prompt_ids"]) < args.max_length)

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
    return PairsTrainer(
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


def written_lessons(job: TrainingJob, tokenizer: Any) -> tuple[Any, str]:
    """The rows as tokens with labels on every answer and nothing else; and what is to be said of their number, if so.

    Raises ModelError where an answer would not continue its prompt.
    """
    rows = _rows(job, ["messages"])
    written = rows.map(
        _write_lessons, fn_kwargs={"tokenizer": tokenizer}, batched=True, batch_size=100, remove_columns=["messages"]
    )
    if len(written) == len(rows):
        return written, ""
    return written, (
        f"{len(rows):,} rows are trained on as {len(written):,}: the chat template writes an earlier answer of a "
        "conversation differently from the last one, so each is a row of its own behind its prompt"
    )


def _write_lessons(rows: dict[str, list[Any]], tokenizer: Any) -> dict[str, list[Any]]:
    written = [lesson for turns in rows["messages"] for lesson in lessons(tokenizer, turns)]
    labels = [
        [token if counts else NO_LABEL for token, counts in zip(tokens, taught, strict=True)]
        for tokens, taught in written
    ]
    return {"input_ids": [tokens for tokens, _ in written], "labels": labels}


def _write_pair(row: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    prompt, chosen = exchange(tokenizer, row["prompt"] + row["chosen"])
    _, rejected = exchange(tokenizer, row["prompt"] + row["rejected"])
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


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
