"""A training process that measures something else at each start, and runs out of memory at the first one.

And at later ones as well with one row at once, unless it may compute activations again.
"""

import sys
from pathlib import Path

from tasks.training.job import EventWriter, TrainingJob

if __name__ == "__main__":
    job = TrainingJob.read(Path(sys.argv[1]))
    started = job.folder / "started"
    events = EventWriter(job.folder)
    again = started.exists()
    started.touch()
    events.write("decision", kind="precision", text=f"fp32 weights: it took {12 if again else 10} ms")
    events.write("begin", step=0, steps=1)
    if again and (job.rows_at_once > 1 or job.recompute):
        events.write("done", adapter="", precision="fp32", steps=1, seconds=1.0)
    else:
        events.write("out of memory", rows_at_once=job.rows_at_once)
