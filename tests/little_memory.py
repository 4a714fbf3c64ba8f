"""A training process that may take only so much memory: ``python -m tests.little_memory JOB_FILE``."""

import os
import resource
import sys
import threading
import time
from pathlib import Path

from tasks.training import worker

LIMIT = "TANDEM_TESTS_BYTES"
"""Names how many it may take beside what its libraries take as soon as they are imported; without it, any number."""
PEAK_FILE = "peak"
"""Beside the job's file: the most it took."""


def taken() -> int:
    """Bytes of data that this process holds by now; what RLIMIT_DATA limits."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


def note_peak(file: Path, before: int) -> None:
    peak, aside = 0, file.with_suffix(".new")
    while True:
        if (now := taken() - before) > peak:
            peak = now
            aside.write_text(str(peak))
            aside.replace(file)  # whole, whenever the process ends
        time.sleep(0.001)


if __name__ == "__main__":
    import torch
    import trl.trainer.sft_trainer  # noqa: F401

    torch.set_num_threads(1)  # each thread would reserve memory of its own
    job, before = Path(sys.argv[1]), taken()
    threading.Thread(target=note_peak, args=(job.with_name(PEAK_FILE), before), daemon=True).start()
    if limit := os.environ.get(LIMIT):
        most = before + int(limit)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    sys.exit(worker.main(job))
