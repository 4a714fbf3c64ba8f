"""Real fine-tunes on real workers that are killed, cancelled, or whose loss is lost."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import safetensors.torch
import torch
from mlflow.entities import Run

from tasks.adapters import fetch_adapter
from tasks.registry.checkpoints import read_step
from tasks.registry.connection import MlflowClient, connect
from tasks.registry.runs import CLOSED_TAG
from tasks.registry.versions import list_versions
from tasks.tracking import FLOW_RUN_TAG
from tests.installation import Installation, cancel, completed, installed, lives, read, state, tandem
from tests.tiny_models import make_model, write_data, write_yaml
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.services, pytest.mark.timeout(1800)]
TRAINING, SCORING = "tasks.training.worker", "tasks.training.scorer"
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
STEPS = 300
CHECKPOINT_MINUTES = 0.02


@dataclass(frozen=True)
class Started:
    """A fine-tune that a worker was told to run."""

    name: str
    flow_run: UUID

    def runs(self, client: MlflowClient) -> list[Run]:
        """Its runs in MLflow."""
        if (experiment := client.get_experiment_by_name(f"adapter-{self.name}")) is None:
            return []
        return list(client.search_runs([experiment.experiment_id], f"tags.`{FLOW_RUN_TAG}` = '{self.flow_run}'"))

    def child(self, client: MlflowClient, module: str) -> psutil.Process | None:
        """The process that trains or scores, once it is there."""
        folders = [f"/training/{run.info.run_id}/" for run in self.runs(client)]
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if module in command and any(folder in command[-1] for folder in folders):
                return process
        return None


@dataclass(frozen=True)
class Lost:
    """Two fine-tunes that were in the midst of their training when their workers were killed."""

    with_worker: Started
    """Killed together with its worker."""
    left_alone: Started
    """Only its worker was killed."""
    steps: dict[str, int]
    """By name, the step of the checkpoint that was kept by then."""
    survivors: list[int]
    """Processes of the second one that still lived ten seconds later."""


def broken_model(folder: Path) -> Path:
    """One whose loss is no number."""
    file = make_model(folder) / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["model.norm.weight"].fill_(float("nan"))
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def here(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("finetunes")
    conf = folder / "conf"
    write_yaml(conf / "models" / "tiny.yaml", {"model": str(tiny_model)})
    write_yaml(conf / "models" / "broken.yaml", {"model": str(broken_model(folder / "broken"))})
    write_yaml(conf / "datasets" / "rows.yaml", {"format": "messages", "sources": [str(write_data(folder))]})
    deployment = {"flow": "flows/finetune_sft.py:finetune_sft", "limit": None, "retry_crashed": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TANDEM_CONF", str(conf))
        patch.setenv("OMP_NUM_THREADS", "1")
        on_cpu, on_gpu = deployment | {"name": "on-cpu"}, deployment | {"name": "on-gpu", "work_pool": "gpu"}
        with installed(folder, on_cpu, on_gpu) as installation:
            patch.setenv("MLFLOW_TRACKING_URI", installation.address("mlflow"))
            yield installation


@pytest.fixture(scope="module")
def client(here: Installation) -> MlflowClient:
    return connect(here.home)


def start(here: Installation, name: str, where: str = "on-cpu", base: str = "tiny", steps: int = STEPS) -> Started:
    folder = here.home.root.parent
    config = {
        "name": name,
        "base": base,
        "dataset": "rows",
        "checks": {"min_rows": 10, "near_duplicate": 1},
        "training": {"max_length": 64, "learning_rate": 0.01, "epochs": 100, "batch_rows": 8, "max_steps": steps},
        "machine": {"precision": "fp32", "checkpoint_minutes": CHECKPOINT_MINUTES},
        "scoring": {
            "scores": [],
            "general_text": str(folder / "text.jsonl"),
            "general_choices": str(folder / "choices.jsonl"),
        },
        "promote": "never",
    }
    return Started(name, here.start(f"finetune-sft/{where}", config=config))


@pytest.fixture(scope="module")
def lost(here: Installation, client: MlflowClient) -> Lost:
    """At the beginning, because the server lets minutes pass before it starts them again."""
    both = start(here, "killed"), start(here, "alone", "on-gpu")
    wait_for(lambda: all(run.child(client, TRAINING) for run in both), 480)
    wait_for(lambda: all(read_step(client, run.runs(client)[0].info.run_id) for run in both))
    cpu, gpu = (psutil.Process(here.pid(f"worker-{pool}")) for pool in ("cpu", "gpu"))
    alone = [*gpu.children(recursive=True)]
    for process in [gpu, *cpu.children(recursive=True), cpu]:
        process.kill()
    _, alive = psutil.wait_procs(alone, 10)
    steps = {run.name: read_step(client, run.runs(client)[0].info.run_id) or 0 for run in both}
    again = tandem(here.home, "up", here.deployments)
    assert again.returncode == 0, again.stderr
    return Lost(*both, steps, [process.pid for process in alive if lives(process.pid)])


@pytest.fixture(scope="module")
def undisturbed(here: Installation, lost: Lost) -> Started:
    return start(here, "calm")


@pytest.fixture(scope="module")
def without_loss(here: Installation, lost: Lost) -> Started:
    return start(here, "broken", base="broken")


def test_a_fine_tune_does_not_outlive_its_worker(lost: Lost) -> None:
    assert lost.survivors == []


@pytest.mark.usefixtures("undisturbed", "without_loss")  # they go on meanwhile
@pytest.mark.parametrize(("module", "steps"), [(TRAINING, 10_000), (SCORING, 1)])
def test_a_cancelled_fine_tune_is_gone_within_ten_seconds_and_no_run_of_it_is_left_running(
    here: Installation, client: MlflowClient, module: str, steps: int
) -> None:
    run = start(here, module.rpartition(".")[2], steps=steps)
    wait_for(lambda: run.child(client, module) is not None, 480)
    child = run.child(client, module)
    assert child
    flow = child.parent()
    assert flow
    cancel(run.flow_run)
    wait_for(lambda: not lives(child.pid), 10)
    wait_for(lambda: not lives(flow.pid))
    wait_for(lambda: state(run.flow_run) == "Cancelled")
    [ended] = run.runs(client)
    assert (ended.info.status, ended.data.tags[CLOSED_TAG]) == ("KILLED", "cancelled in Prefect")


def test_a_loss_that_is_no_number_fails_the_run_in_both_places(without_loss: Started, client: MlflowClient) -> None:
    wait_for(lambda: read(without_loss.flow_run).state_type in ENDED, 480)
    failed = read(without_loss.flow_run)
    assert (failed.state_name, failed.run_count) == ("Failed", 1)
    assert "the loss was nan at step 1" in (failed.state.message or "")  # type: ignore[union-attr]
    assert [run.info.status for run in without_loss.runs(client)] == ["FAILED"]


@pytest.mark.parametrize("which", ["with_worker", "left_alone"])
def test_a_fine_tune_whose_worker_was_killed_goes_on_to_the_adapter_it_would_have_become(
    here: Installation, lost: Lost, undisturbed: Started, client: MlflowClient, tmp_path: Path, which: str
) -> None:
    run: Started = getattr(lost, which)
    wait_for(lambda: all(read(each.flow_run).state_type in ENDED for each in (run, undisturbed)), 840)
    assert completed(run.flow_run)
    assert completed(undisturbed.flow_run)
    assert read(run.flow_run).run_count == 2
    [mlflow_run] = run.runs(client)
    [version] = list_versions(client, run.name)
    assert (mlflow_run.info.status, version.run_id) == ("FINISHED", mlflow_run.info.run_id)

    steps = [point.step for point in client.get_metric_history(mlflow_run.info.run_id, "loss")]
    twice = {step for step in steps if steps.count(step) > 1}
    assert min(steps) < lost.steps[run.name] < STEPS == max(steps)
    assert all(step > lost.steps[run.name] for step in twice)

    ours, theirs = (weights(here, name, tmp_path / name) for name in (run.name, undisturbed.name))
    assert ours.keys() == theirs.keys()
    largest = max(float(tensor.abs().max()) for tensor in theirs.values())
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) <= 1e-5 * largest


def weights(here: Installation, name: str, folder: Path) -> dict[str, torch.Tensor]:
    _, adapter = fetch_adapter(name, 1, folder, here.home)
    return safetensors.torch.load_file(adapter / "adapter_model.safetensors")
