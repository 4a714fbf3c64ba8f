"""The ways Tandem can fail, each with a message that says what is wrong, where, and what to do.

Every error is picklable, so that it survives the way back from a worker process.
"""


class TandemError(Exception):
    """An expected failure: its message is meant for a person and is shown without a traceback."""


class ConfigError(TandemError, ValueError):
    """A configuration, golden file or argument is wrong. Exit status 2."""


class SchemaError(ConfigError):
    """A JSON schema that an answer shall fit cannot be used. The message is for whoever sent it."""


class SourceError(TandemError, OSError):
    """A source does not exist, cannot be reached, or failed half way."""


class UnreachableError(SourceError):
    """A source that does not answer now and may at the next try."""


class ParseError(TandemError, ValueError):
    """One file yields no text. The message is the reason that the report shows."""


class EmbedderError(TandemError, RuntimeError):
    """A model cannot be found or an embeddings endpoint does not answer."""


class StoreError(TandemError, RuntimeError):
    """The LanceDB table cannot be read or written (full disk, newer format, version gone)."""


class RegistryError(TandemError, RuntimeError):
    """MLflow does not answer, or what it holds does not fit what was asked."""


class DamagedCheckpointError(RegistryError):
    """What is kept of a training is not whole."""


class ServerError(TandemError, OSError):
    """A Prefect server that is set does not answer."""


class RefusedError(TandemError):
    """It ran, and the answer is no: a gate, a hold or a protection stands against it. Exit status 1."""


class BusyError(RefusedError):
    """Another run holds the lock on the same index."""


class ModelError(TandemError, RuntimeError):
    """A base model or an adapter cannot be found or loaded, or the two do not fit."""


class AnswerError(ModelError):
    """A model wrote something else than the schema that it was given asks for."""


class TrainingError(TandemError, RuntimeError):
    """A training stopped: its data are not fit, its loss exploded, or its memory does not suffice."""


class ProcessDiedError(TrainingError):
    """A training process was killed or fell over; a next one goes on from its checkpoint."""
