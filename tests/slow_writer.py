"""A process that writes to an index's table slowly, for the tests of those who clean up meanwhile."""

import sys
import time
from pathlib import Path

import lance
import pyarrow as pa

from tests.fakes import batch

PAUSE = 0.4
"""Seconds in which a file lies on the disk that no version refers to yet."""


def main(table: str, done: str, rounds: int) -> None:
    """Write a fragment, wait, and commit it, as often as that."""
    for number in range(rounds):
        rows = pa.Table.from_batches([batch({f"slow/{number}.md": [f"page {number}", f"word {number}"]})])
        fragments = lance.fragment.write_fragments(rows, table, mode="append")
        time.sleep(PAUSE)
        read = lance.dataset(table).version
        lance.LanceDataset.commit(table, lance.LanceOperation.Append(fragments), read_version=read)
    Path(done).touch()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
