"""A training process that shards over CPUs, as accelerate does only over GPUs: ``python -m tests.fsdp_on_cpu JOB``."""

import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState

from tasks.training import worker

choose = AcceleratorState.__init__
gather = Accelerator.get_state_dict


def shard(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    choose(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    self.fsdp_plugin = fsdp_plugin or self.fsdp_plugin
    self.distributed_type = DistributedType.FSDP


def gathered(self: Accelerator, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """What is gathered from GPUs has been copied to the CPU, and so been waited for."""
    return {name: tensor.clone() for name, tensor in gather(self, *args, **kwargs).items()}


if __name__ == "__main__":
    AcceleratorState.__init__ = shard
    Accelerator.get_state_dict = gathered
    sys.exit(worker.main(Path(sys.argv[1])))
