"""Converters that misbehave, for the worker processes: a worker can only import functions of a module."""

import os
import signal
import time

from tasks.documents.parsing import parse
from tasks.errors import ParseError
from tasks.records import ParsedDocument


class Panic(BaseException):
    """What a panic in Rust looks like in Python: not an Exception, and of a class nobody can import."""

    __module__ = "nowhere"


class Poison(ParseError):
    """Cannot be read by the process that receives it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return int, ("no number",)


def misbehave(name: str, data: bytes) -> ParsedDocument:
    """Do what the file's name says; parse any other file."""
    if name == "hang.md":
        time.sleep(600)
    if name == "swell.md":
        return ParsedDocument("x" * 8_000_000_000)
    if name == "crash.md":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "panic.md":
        raise Panic("index out of bounds")
    if name == "poison.md":
        raise Poison("poison")
    if name == "bug.md":
        raise KeyError("colour")
    return parse(name, data)
