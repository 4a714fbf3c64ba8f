"""Tasks of lm-evaluation-harness (Gao et al., 2024), run on a model that is loaded."""

from collections.abc import Sequence
from typing import Any

from tasks.errors import ConfigError

BATCH_ROWS = 8


def find_suites(names: Sequence[str], folder: str) -> Any:
    """The harness's `TaskManager` that knows the tasks; reads no data and needs no model.

    Raises:
        ConfigError: the harness is not installed, or a task is unknown.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ConfigError(
            f"scoring.suites needs lm-evaluation-harness ({error}): pip install 'tandem[harness]', or empty the setting"
        ) from None
    manager = TaskManager(include_path=folder or None, include_defaults=not folder)
    if folder and not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=folder)  # reads thousands of files, for many seconds
    if unknown := sorted(set(names) - set(manager.all_tasks)):
        raise ConfigError(
            f"scoring.suites: lm-evaluation-harness knows no task {', '.join(unknown)}: correct the name, or name the "
            "folder with tasks of your own as scoring.suites_folder"
        )
    return manager


def run_suites(model: Any, tokenizer: Any, names: Sequence[str], folder: str, rows: int) -> dict[str, list[float]]:
    """By task, the value of its first metric for each of up to `rows` questions, in the order of the task.

    Args:
        model: a causal language model, adapted or not.
        tokenizer: its tokenizer.
        names: tasks.
        folder: with tasks of one's own, as YAML files; none, if empty.
        rows: most questions of a task.

    Raises:
        ConfigError: the harness is not installed, or a task is unknown or has no data here.
    """
    manager = find_suites(names, folder)
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    try:
        found = simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_ROWS, device=str(model.device)),
            tasks=list(names),
            task_manager=manager,
            limit=rows,
            bootstrap_iters=0,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"scoring.suites {', '.join(names)} cannot be run: {error}") from error
    return {name: _first_metric(samples) for name, samples in sorted(found["samples"].items())}


def _first_metric(samples: Sequence[dict[str, Any]]) -> list[float]:
    """A task that reads its answers in several ways has a sample for each; the first one counts, as in its card."""
    metric, filter_ = samples[0]["metrics"][0], samples[0]["filter"]
    return [float(sample[metric]) for sample in samples if sample["filter"] == filter_]
