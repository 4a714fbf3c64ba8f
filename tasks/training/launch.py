"""Torch's launcher of several processes, except that it dies with whoever started it."""

from torch.distributed.run import main

from tasks.training.process import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    main()
