"""Says whether a data set of approved rows is enough for a fine-tune, and starts that where it is deployed."""

from collections.abc import Mapping
from dataclasses import dataclass

from prefect import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from tasks.config.choices import load_choice
from tasks.config.curation import CurateConfig
from tasks.config.settings import Home
from tasks.config.training import DATASETS, DatasetConfig, DpoConfig, FinetuneConfig, SftConfig
from tasks.errors import ConfigError
from tasks.records import DataKind, DataVersion
from tasks.registry.connection import connect
from tasks.registry.datasets import STARTED_TAG, started_from
from tasks.registry.runs import log


@dataclass(frozen=True, slots=True)
class Start:
    """A fine-tune that is due."""

    config: FinetuneConfig
    version: DataVersion

    @property
    def method(self) -> str:
        return "dpo" if isinstance(self.config, DpoConfig) else "sft"


def due(config: CurateConfig, versions: Mapping[DataKind, DataVersion], home: Home) -> tuple[list[Start], list[str]]:
    """The fine-tunes that have enough rows, with the reason; and why the others do not start, as sentences.

    Raises ConfigError where a fine-tune does not read the data set that it is to start from.
    """
    starts, why_not = [], []
    named: dict[DataKind, tuple[str | None, type[FinetuneConfig]]] = {
        "sft": (config.sft, SftConfig),
        "dpo": (config.dpo, DpoConfig),
    }
    for kind, (choice, model) in named.items():
        version = versions.get(kind)
        if choice is None:
            why_not += [f"{version.pinned} starts no fine-tune: `{kind}` names none."] if version else []
            continue
        wanted = load_choice(kind, choice, model)
        check_reads(config, kind, wanted)
        if version is None:
            why_not.append(f"{choice} is not fine-tuned: no row of {config.name}-{kind} is approved.")
        elif reason := _too_few(version, wanted, config, home):
            why_not.append(reason)
        else:
            why = (
                f"{version.pinned} has {version.train} approved rows to train on, of at least "
                f"{wanted.checks.min_rows}; made by `tandem curate` of conf/curate/{config.name}.yaml."
            )
            update = {"dataset_version": version.number, "reason": why}
            starts.append(Start(wanted.model_copy(update=update), version))
    return starts, why_not


def check_reads(config: CurateConfig, kind: str, wanted: FinetuneConfig) -> None:
    """Raises ConfigError where a fine-tune would be started that does not read what starts it."""
    source = f"{DATASETS}{config.name}-{kind}@newest"
    if source not in load_choice("datasets", wanted.dataset, DatasetConfig).sources:
        raise ConfigError(
            f"conf/curate/{config.name}.yaml starts {wanted.name} by `{kind}`, but conf/datasets/{wanted.dataset}.yaml "
            f"does not read what it makes: name {source} under `sources`, and {source}/held_out under `held_out`"
        )


def start_by_deployment(start: Start) -> str:
    """Start it on the Prefect server that is set, once for a version; the run's id, empty where none is deployed."""
    if not PREFECT_API_URL.value():
        return ""
    name = f"finetune-{start.method}"
    parameters = {"config": start.config.model_dump(mode="json", exclude_unset=True)}
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(f"{name}/{name}")
        except ObjectNotFound:
            return ""
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters=parameters, idempotency_key=start.version.pinned
        )
    return str(run.id)


def note_start(start: Start, what: str, home: Home) -> None:
    """Write down that a fine-tune was started from a version, which starts no other."""
    log(connect(home), start.version.run_id, tags={STARTED_TAG: what})


def _too_few(version: DataVersion, wanted: FinetuneConfig, config: CurateConfig, home: Home) -> str:
    """Why a version starts nothing; empty where it may."""
    started = started_from(connect(home), version.name)
    if version in started:
        return f"{version.pinned} has started a fine-tune already: {started[version]}."
    if version.train < wanted.checks.min_rows:
        return (
            f"{version.pinned} has {version.train} rows to train on, and {wanted.name} needs {wanted.checks.min_rows} "
            "(checks.min_rows)."
        )
    dataset = load_choice("datasets", wanted.dataset, DatasetConfig)
    all_held_out = (f"{DATASETS}{version.name}@newest/held_out",)
    if dataset.held_out == all_held_out and version.held_out < wanted.gate.min_rows:
        return (
            f"{version.pinned} has {version.held_out} held-out rows, and the gate of {wanted.name} judges by no fewer "
            f"than {wanted.gate.min_rows} (gate.min_rows)."
        )
    last = max(started, key=lambda before: before.number, default=None)
    if last and version.train - last.train < config.new_rows:
        return (
            f"{version.pinned} has {version.train - last.train} rows more than {last.pinned}, from which "
            f"{wanted.name} was trained, and new_rows is {config.new_rows}."
        )
    return ""
