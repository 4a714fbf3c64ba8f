"""The configuration of a fine-tune: what to train, on what, how, and what the adapter must show.

`SftConfig` and `DpoConfig` are each the one parameter of a flow and are rendered as a form by the Prefect UI;
`BaseModelConfig` and `DatasetConfig` are the files under conf/models/ and conf/datasets/ that the forms choose from.
Imports nothing heavy. Relative paths are meant from the folder in which the run works.

The defaults of LoRA (all linear layers, alpha 32, a learning rate about ten times that of full fine-tuning) follow
Schulman and Thinking Machines Lab, "LoRA Without Regret", 2025; those of DPO (beta 0.1, a learning rate of a few
1e-6, one epoch) follow Rafailov et al., "Direct Preference Optimization", 2023, and Tunstall et al., "Zephyr", 2023.
"""

import math
import re
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tasks.config.choices import Choice
from tasks.config.fields import Address, Name, Share, Strict

Parent = Annotated[str, Field(pattern=r"^$|^[a-z0-9][a-z0-9_-]{0,62}@(champion|candidate|previous|[0-9]+)$")]
DATASETS = "datasets:/"
OWN_SOURCE = re.compile(
    rf"{DATASETS}(?P<name>[a-z0-9][a-z0-9_-]{{0,69}})@(?P<which>newest|[0-9]+)(?P<held_out>/held_out)?"
)
"""A data set that `tandem curate` made: the rows to train on of a version, or those held out."""
Score = Literal["exact_match", "label_accuracy", "macro_f1", "valid_json", "schema_valid", "field_f1", "overlap"]

FIELDS = {
    "messages": ("messages",),
    "prompt_completion": ("prompt", "completion"),
    "preference": ("prompt", "chosen", "rejected"),
}
"""By format of a data set. A preference may have no prompt of its own: its two answers then begin with it."""


class BaseModelConfig(Strict):
    """A base model that adapters are trained for: one file under conf/models/."""

    model: str
    """Hub id or local folder."""
    revision: str | None = None
    """Commit on the hub; a version registered with it can be loaded with no other weights."""
    description: str = ""
    """What it is, its size and its licence."""
    four_bit: bool = False
    """Load the base in 4 bits (NF4) while training, where bitsandbytes is installed."""


class DatasetConfig(Strict):
    """Rows to train on: one file under conf/datasets/."""

    description: str = ""
    """What it is and its licence."""
    format: Literal["messages", "prompt_completion", "preference"]
    """Conversations; a prompt and its completion; or a prompt with a chosen and a rejected completion."""
    sources: tuple[Address, ...] = Field(min_length=1)
    """Files (jsonl, parquet or csv), folders, globs, fsspec URLs, `hub:owner/name` for a data set of the hub, or
    `datasets:/name@3`, `datasets:/name@newest` for one that `tandem curate` made."""
    hub_split: str = "train"
    """For a data set of the hub: the split to read."""
    held_out: tuple[Address, ...] = ()
    """Sources with rows kept for scoring, such as `datasets:/name@newest/held_out`; without them some rows of `sources`
    are held out."""
    converter: Literal["none", "transcript"] = "none"
    """`transcript` reads texts of the form "\\n\\nHuman: … \\n\\nAssistant: …"."""
    columns: dict[str, str] = Field({})
    """For a field of the format (messages, prompt, completion, chosen, rejected): its column, or a Jinja template
    over the columns such as `{"intent": {{ category | tojson }}}`."""
    system: str = ""
    """System turn put before every conversation that has none."""
    id_column: str | None = None
    """Column that names a row in reports; the row's number, if empty."""
    group_column: str | None = None
    """Column whose rows stay together: a customer or a conversation is never on both sides of the split."""
    label_column: str | None = None
    """Column that is balanced between the sides where there is neither a date nor a group, and scored by slice."""
    date_column: str | None = None
    """Column with the date of a row."""
    cut_off: date | None = None
    """Rows of this day and later are held out; rows to train on may not be newer."""

    @field_validator("sources", "held_out")
    @classmethod
    def _own_sources_are_whole(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for source in sources:
            if source.startswith(DATASETS) and not OWN_SOURCE.fullmatch(source):
                raise ValueError(f"{source}: write {DATASETS}name@3 or {DATASETS}name@newest, with /held_out behind it")
        return sources

    @model_validator(mode="after")
    def _columns_are_known(self) -> "DatasetConfig":
        if unknown := sorted(self.columns.keys() - set(FIELDS[self.format])):
            raise ValueError(
                f"columns: {', '.join(unknown)} is no field of the format {self.format}, which has "
                f"{', '.join(FIELDS[self.format])}"
            )
        if self.cut_off and not self.date_column:
            raise ValueError(f"cut_off ({self.cut_off}) needs date_column, the column with the date of a row")
        return self


class CheckConfig(Strict):
    """Checks of the rows before a second of training."""

    min_rows: int = Field(500, ge=1)
    """Fewer rows to train on than this stop the run."""
    max_broken: Share = 0.0
    """Largest share of rows that may be malformed; they are left out. More stop the run."""
    max_cut: Share = 0.05
    """Largest share of rows that may be longer than `max_length` and so be cut."""
    near_duplicate: float = Field(0.9, gt=0, le=1)
    """Rows whose word shingles have this Jaccard similarity count as near duplicates."""
    leaked: Literal["stop", "drop", "report"] = "drop"
    """What to do with rows to train on that are, nearly, among the rows to score on."""
    private: Literal["stop", "drop", "report"] = "stop"
    """What to do with rows that hold secrets or personal data."""


class DpoCheckConfig(CheckConfig):
    """Checks of the pairs before a second of training."""

    min_rows: int = Field(200, ge=1)
    """Fewer pairs to train on than this stop the run."""


class LoraConfig(Strict):
    """Rank, scale and place of the adapter."""

    rank: int = Field(16, ge=1, le=1024)
    """Rank of the update of each matrix."""
    alpha: float = Field(32, gt=0, le=4096)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0, ge=0, lt=1)
    """Dropout before the update; 0 is faster and right for most data sets."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """Names of the matrices to adapt; all linear layers but the head by default."""
    rslora: bool = False
    """Scale by alpha / √rank (Kalajdzievski, 2023): for high ranks."""
    dora: bool = False
    """Learn magnitude and direction apart (Liu et al., 2024): slower, sometimes better at low ranks."""


class OptimizerConfig(Strict):
    """Rows, steps and learning rate of a training."""

    epochs: float = Field(3, gt=0, le=100)
    """Passes over the rows."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many steps of the optimizer, whatever the epochs."""
    learning_rate: float = Field(2e-4, gt=0, le=1)
    """Highest learning rate."""
    batch_rows: int = Field(16, ge=1, le=4096)
    """Rows (packed sequences, where packing is on) of one step of the optimizer, over all processes, each of which
    takes as many."""
    rows_at_once: int = Field(8, ge=1, le=4096)
    """Most rows on a device at once; as many of them are taken as divide a process's rows of a step, and half as many,
    with more accumulation, where memory runs out."""
    max_length: int = Field(1024, ge=16, le=1_000_000)
    """Tokens after which a row is cut."""
    warmup: Share = 0.03
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after that."""
    weight_decay: float = Field(0, ge=0, le=1)
    """Decay of the adapter's weights."""
    max_gradient: float = Field(1, gt=0)
    """Gradients are clipped to this norm."""
    seed: int = Field(0, ge=0, le=2**31)
    """Of the adapter's first weights, the order of the rows and the dropout."""


class SftOptimizerConfig(OptimizerConfig):
    """Rows, steps and learning rate of supervised fine-tuning."""

    packing: bool = True
    """Put several rows into one sequence of `max_length`, none seeing another."""


class DpoOptimizerConfig(OptimizerConfig):
    """Pairs, steps, learning rate and loss of preference optimisation."""

    epochs: float = Field(1, gt=0, le=100)
    """Passes over the pairs."""
    learning_rate: float = Field(5e-6, gt=0, le=1)
    """Highest learning rate."""
    loss: Literal[
        "sigmoid",
        "sigmoid_norm",
        "hinge",
        "ipo",
        "robust",
        "exo_pair",
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sft",
    ] = "sigmoid"
    """The loss over a pair, by TRL's name; sigmoid is DPO as published. aot and aot_unpaired compare the pairs that are
    on a device at once, so they need several; sft learns the chosen answer and leaves the rejected one out."""
    beta: float = Field(0.1, gt=0, le=10)
    """How closely the model is held to the reference; smaller lets it go further."""
    label_smoothing: float = Field(0, ge=0, lt=0.5)
    """Assumed share of pairs that are labelled the wrong way round; exo_pair needs a little, such as 0.001."""

    @model_validator(mode="after")
    def _loss_has_what_it_needs(self) -> "DpoOptimizerConfig":
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("the loss exo_pair needs a label_smoothing above 0; its paper takes 0.001")
        return self


class MachineConfig(Strict):
    """Precision, processes and checkpoints of the training."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of weights and arithmetic; auto takes bf16 on a GPU and, on a CPU, whichever measures faster: bf16 where
    it is so by a quarter, so that chance does not decide otherwise when a training goes on."""
    processes: int = Field(1, ge=1, le=64)
    """Training processes, one for each GPU, started through accelerate."""
    fsdp: bool = False
    """With several processes: shard the base model over them instead of keeping a copy in each."""
    fused: bool = True
    """Use fused kernels (Liger), variable-length attention and compilation where they are installed and able."""
    checkpoint_minutes: float = Field(10, gt=0)
    """A checkpoint is kept after every step that ends this long after the last."""


class ScoringConfig(Strict):
    """Scores of the adapter, beside the base model and the champion."""

    scores: tuple[Score, ...] = ("exact_match", "overlap")
    """Scores of generated answers on held-out rows; the first is the one the gate compares."""
    json_schema: str | None = None
    """JSON schema file that answers must satisfy, for `schema_valid`."""
    label_key: str | None = None
    """For label scores on JSON answers: the key that holds the label; the whole answer is the label, if empty."""
    max_rows: int = Field(200, ge=1)
    """Held-out rows that are answered; all of them enter the held-out loss."""
    max_new_tokens: int = Field(256, ge=1, le=32_768)
    """Longest answer."""
    examples: int = Field(3, ge=0, le=50)
    """Rows shown in the prompt when the base model is scored with examples."""
    general_text: str = "data/samples/general/text.jsonl"
    """Texts, not about the task, on which cross-entropy before and after tells how much was forgotten."""
    general_choices: str = "data/samples/general/choices.jsonl"
    """Multiple-choice questions, not about the task, scored by the likelihood of each choice."""
    suites: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, such as gsm8k, that tell with the general texts what was forgotten; needs the
    extra `harness`."""
    suites_folder: str = ""
    """Folder with tasks of your own for the harness, as YAML files."""
    suite_rows: int = Field(200, ge=1)
    """Questions of each suite that are asked."""


class AdapterGateConfig(Strict):
    """Thresholds that a new adapter must pass before it goes live."""

    min_rows: int = Field(50, ge=1)
    """Fewer held-out rows than this never pass."""
    floors: dict[str, float] = Field({})
    """Lowest acceptable value by score, such as schema_valid: 0.95."""
    max_loss: float = Field(0.02, ge=0)
    """Loss of the compared score against the champion that is tolerated."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """How sure the gate must be: that the candidate beats the base model, and that a loss is no chance."""
    max_forgotten: float = Field(0.1, ge=0)
    """Rise of cross-entropy on general text that is tolerated, in nats a token."""
    max_general_loss: Share = 0.05
    """Loss of accuracy on general multiple-choice questions, and on each suite, that is tolerated."""


class FinetuneConfig(Strict):
    """What SFT and DPO have in common, in the order of the form."""

    name: Name
    """Name of the adapter in the MLflow registry."""
    base: Annotated[str, Choice("models")]
    """Base model: a file under conf/models/."""
    dataset: Annotated[str, Choice("datasets")]
    """Data set: a file under conf/datasets/."""
    dataset_version: int = Field(0, ge=0)
    """The version that stands for `@newest` in the data set's sources; the newest, if 0."""
    parent: Parent = ""
    """Adapter to go on from, such as support@champion or support@3; a new one on the base model, if empty."""
    held_out_share: float = Field(0.1, gt=0, lt=1)
    """Share of the rows held out for scoring, where the data set has no cut-off and no held-out rows of its own."""
    promote: Literal["auto", "ask", "never"] = "ask"
    """Put an adapter that passes live at once, leave it as candidate for a person, or only register it."""
    training: OptimizerConfig = OptimizerConfig()
    """The steps of the training."""
    lora: LoraConfig = LoraConfig()
    """The shape of the adapter; a parent's own shape is kept."""
    checks: CheckConfig = CheckConfig()
    """What the data must show."""
    scoring: ScoringConfig = ScoringConfig()
    """What the adapter is scored on."""
    gate: AdapterGateConfig = AdapterGateConfig()
    """What the adapter must show."""
    machine: MachineConfig = MachineConfig()
    """How the machine is used."""
    lock_minutes: float = Field(30, ge=0)
    """How long a second run for the same adapter waits for the first before it is skipped."""
    reason: str = Field("", max_length=2000)
    """Why it is trained, for the run in MLflow."""

    @model_validator(mode="after")
    def _processes_share_a_step(self) -> "FinetuneConfig":
        rows, processes = self.training.batch_rows, self.machine.processes
        if rows % processes:
            raise ValueError(
                f"training.batch_rows ({rows}) cannot be shared evenly by machine.processes ({processes}): take "
                f"batch_rows {math.ceil(rows / processes) * processes}"
            )
        return self

    @model_validator(mode="after")
    def _schema_is_named(self) -> "FinetuneConfig":
        if "schema_valid" in self.scoring.scores and not self.scoring.json_schema:
            raise ValueError("scoring.scores asks for schema_valid: name the schema's file under scoring.json_schema")
        return self


class SftConfig(FinetuneConfig):
    """Teach a model how to answer, from examples (supervised fine-tuning with LoRA)."""

    training: SftOptimizerConfig = SftOptimizerConfig()
    """The steps of the training."""


class DpoConfig(FinetuneConfig):
    """Teach a model which of two answers is better, from pairs (direct preference optimisation with LoRA)."""

    checks: DpoCheckConfig = DpoCheckConfig()
    """What the pairs must show."""
    training: DpoOptimizerConfig = DpoOptimizerConfig()
    """The steps of the training."""
    scoring: ScoringConfig = ScoringConfig(scores=())
    """Preference accuracy and margin are always scored; generated answers only by the scores named here."""
