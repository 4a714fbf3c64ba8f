"""All measurements, or those that are named, each in a process of its own.

python -m tests.benchmarks [NAME ...]
"""

import subprocess
import sys
import time

BENCHMARKS = (
    "embedding_speed",
    "fusion",
    "harder_retrieval",
    "exact_search",
    "search_100k",
    "unchanged_night",
    "one_percent_night",
    "memory_100k",
    "thirty_nights",
    "hundred_nights",
    "against_peers",
    "training",
    "training_overhead",
    "real_finetunes",
    "answers_xquad",
    "routing",
    "diagnosis",
    "service",
    "drift",
    "start_up",
    "week",
)


def main() -> None:
    names = sys.argv[1:] or BENCHMARKS
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        sys.exit(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    failed = []
    for name in names:
        print(f"» {name}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"]).returncode:
            failed.append(name)
        print(f"» {name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
