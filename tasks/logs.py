"""What a long-running command writes to standard error."""

import logging


def log_to_standard_error(levels: dict[str, int]) -> None:
    """Lines of these loggers, from these levels on: other libraries might log the texts that they handle."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
