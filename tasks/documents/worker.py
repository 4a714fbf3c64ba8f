"""What runs in a worker process. Imports little: every worker pays for it."""

import os
import resource
import threading
from collections.abc import Callable
from functools import cache
from multiprocessing import parent_process
from pathlib import Path

from tasks.errors import ParseError, TandemError
from tasks.records import Chunk, ParsedDocument

Parse = Callable[[str, bytes], ParsedDocument]


def prepare_document(
    parse: Parse,
    max_tokens: int,
    overlap_tokens: int,
    tokenizer_file: str,
    name: str,
    data: bytes | None,
    parsed: ParsedDocument | None,
) -> tuple[ParsedDocument, tuple[Chunk, ...]]:
    """In the worker: parse unless that was done before, and cut."""
    try:
        parsed = parsed or parse(name, data or b"")
        return parsed, tuple(_chunker(max_tokens, overlap_tokens, tokenizer_file)(parsed.text))
    except (TandemError, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is no Exception, and cannot travel back as what it is
        raise ParseError(f"its converter failed: {type(error).__name__}: {error}"[:500]) from None


@cache
def _chunker(max_tokens: int, overlap_tokens: int, tokenizer_file: str) -> Callable[[str], list[Chunk]]:
    from tasks.documents.chunking import make_chunker

    return make_chunker(max_tokens, overlap_tokens, Path(tokenizer_file))


def start_worker(memory_mb: int) -> None:
    """Limit memory, use one thread, and end with the parent, which a kill gives no time to clean up."""
    os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
