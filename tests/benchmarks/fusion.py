"""Hybrid search beside its two retrievers, on public questions: the whole of scifact and of xquad.

    python -m tests.benchmarks.fusion

Each corpus is indexed as a night does it, with the packaged model; nDCG@10 with its interval over queries.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path

from tasks.config.settings import find_home
from tests.benchmarks.installation import new_home
from tests.benchmarks.reporting import save, table


def measured(corpus: str) -> dict[str, dict[str, float]]:
    from tests.public_questions import measure, write_scifact, write_xquad

    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        queries = {"scifact": write_scifact, "xquad": write_xquad}[corpus](site)
        scores = measure(queries, site, find_home(), "auto", ("vector", "text", "hybrid"))
    return {str(mode): asdict(score) for mode, score in scores.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        new_home(Path(folder) / "home")
        found = {corpus: measured(corpus) for corpus in ("scifact", "xquad")}
    rows = [
        [corpus, *("{mean:.3f} ({low:.3f} to {high:.3f})".format(**score) for score in scores.values())]
        for corpus, scores in found.items()
    ]
    columns = ["nDCG@10 (95% interval)", "vectors", "full text", "hybrid"]
    save("fusion", "Hybrid search beside its two retrievers", found, [table(columns, rows)])


if __name__ == "__main__":
    main()
