"""A training process that may take only so much memory: ``python -m tests.little_memory JOB_FILE``."""

import os
import resource
import sys
from pathlib import Path

from tasks.training import worker

VARIABLE = "TANDEM_TESTS_MEGABYTES"
"""Names how much it may take beside what its libraries take as soon as they are imported."""


def taken() -> int:
    """Bytes of data that this process holds by now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


if __name__ == "__main__":
    import torch
    import trl.trainer.sft_trainer  # noqa: F401

    torch.set_num_threads(1)  # each thread would reserve memory of its own
    most = taken() + int(os.environ[VARIABLE]) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    sys.exit(worker.main(Path(sys.argv[1])))
