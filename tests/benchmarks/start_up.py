"""How long `tandem up` takes until everything answers, in a new home and in a used one, and how long `tandem --help`.

python -m tests.benchmarks.start_up [--rounds 3]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.benchmarks.reporting import save, table
from tests.servers import free_port

TANDEM = Path(sys.executable).with_name("tandem")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = [one_round() for _ in range(parser.parse_args().rounds)]
    found = {what: [seconds[what] for seconds in rounds] for what in rounds[0]}
    rows = [[what, float(median(seconds)), min(seconds), max(seconds)] for what, seconds in found.items()]
    save("start_up", "Start-up", found, [table(["seconds", "median", "least", "most"], rows)])


def one_round() -> dict[str, float]:
    """Seconds of each command, in the order in which they are given."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "TANDEM_HOME": folder,
            "PREFECT_HOME": str(Path(folder, "data", "prefect")),
            "TANDEM_MLFLOW_PORT": str(free_port()),
            "TANDEM_PREFECT_PORT": str(free_port()),
        }
        for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
            environment.pop(name, None)

        def seconds(*arguments: str) -> float:
            began = time.perf_counter()
            subprocess.run([TANDEM, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - began

        try:
            return {
                "tandem --help": seconds("--help"),
                "tandem up, in a new home": seconds("up"),
                "tandem up, where all runs": seconds("up"),
                "tandem down": seconds("down"),
                "tandem up, in a used home": seconds("up"),
            }
        finally:
            seconds("down")


if __name__ == "__main__":
    main()
