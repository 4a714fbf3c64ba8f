"""Fine-tunes of the tiny base model on real data, with what they came to: banking77 as SFT, preferences as DPO.

python -m tests.benchmarks.real_finetunes
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from tasks.config.loading import load_config
from tasks.config.settings import Home
from tasks.config.training import DpoConfig, SftConfig
from tasks.environment import prepare_environment
from tests.benchmarks.reporting import save, table

CONF = Path(__file__).resolve().parents[2] / "conf"
CONTENDERS = ("base", "base with examples", "candidate")


def banking77(**training: object) -> SftConfig:
    return _with(load_config(CONF / "sft" / "banking77.yaml", SftConfig), training)


def preferences(**training: object) -> DpoConfig:
    return _with(load_config(CONF / "dpo" / "preferences.yaml", DpoConfig), training)


def _with(config: Any, training: dict[str, object]) -> Any:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        os.environ |= {"TANDEM_HOME": folder, "PREFECT_HOME": str(home.data / "prefect")}
        (home.data / "prefect").mkdir(parents=True)
        prepare_environment(home)
        from flows.finetune_dpo import finetune_dpo
        from flows.finetune_sft import finetune_sft

        found = {"banking77, SFT": finetune_sft(banking77()), "preferences, DPO": finetune_dpo(preferences())}
    parts = []
    for name, done in found.items():
        scores = done.scores["candidate"]
        rows = [[score, *(done.scores.get(who, {}).get(score) for who in CONTENDERS)] for score in scores]
        counts = ", ".join(f"{what} {count:,}" for what, count in done.counts.items())
        seconds = ", ".join(f"{what} {spent:.0f} s" for what, spent in done.seconds.items())
        reasons = "\n".join(f"- {reason}" for reason in done.reasons)
        parts += [f"## {name}: {done.decision}", reasons, table(["score", *CONTENDERS], rows), counts, seconds]
    save("real_finetunes", "Fine-tunes of the tiny base model on real data", {"finetunes": found}, parts)


if __name__ == "__main__":
    main()
