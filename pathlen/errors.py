"""Every error pathlen raises on purpose; each message says what, where and what to do."""

from pathlen.printable import message


class PathlenError(Exception):
    """Base class of all errors that pathlen raises on purpose.

    Names and values from elsewhere stand in messages, so what could not be printed, or would move
    the cursor of a terminal, becomes an escape, and lines without end are cut.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(message(one) if isinstance(one, str) else one for one in arguments))


class GraphError(PathlenError, ValueError):
    """A path graph is not valid, or a question about one cannot be answered."""


class GraphFileError(PathlenError, ValueError):
    """A saved path graph cannot be read: truncated, altered or not a path graph."""


class ActivityError(PathlenError, ValueError):
    """Activities are outside [0, 1], not a number, or do not fit the graph."""


class BackendError(PathlenError, LookupError):
    """No such backend, or a backend that cannot do what was asked."""


class SpecError(PathlenError, ValueError):
    """A model SPEC on the command line cannot be resolved."""


class SettingsError(PathlenError, ValueError):
    """A setting of a task, a model or a run is unknown, missing, or not of its type or range."""


class ReportError(PathlenError, RuntimeError):
    """A report cannot be shown or written as asked: no such folder, or no library to do it with."""


class TraceError(PathlenError, RuntimeError):
    """A model could not be turned into a path graph."""


class ModelError(TraceError):
    """The model's own forward raised; its message is shown inside."""


class UnsafeProgram(TraceError):
    """An exported program holds more than computations, or takes more than it is allowed to."""


class UnsupportedOperation(TraceError):
    """Operations that no rule, decomposition or probe could lower, all listed at once."""


class DataError(PathlenError, ValueError):
    """Data cannot be used: batches that are empty, not finite or unfit, rows without a column."""


class LinearizationError(PathlenError, RuntimeError):
    """A model cannot be given slopes, or departs from the forward that it was given them for."""


class MonitorError(PathlenError, RuntimeError):
    """A model cannot be monitored, or is no longer the one that a monitor was made for."""


class CheckpointError(PathlenError, RuntimeError):
    """A checkpoint cannot be written or read, or is of another run."""


class TrainingError(PathlenError, RuntimeError):
    """A training run cannot go on; its last checkpoint is kept."""


class StudyError(PathlenError, RuntimeError):
    """A study cannot go on, or its folder or its scheduler cannot be used."""


class VerificationError(PathlenError, RuntimeError):
    """A path graph is not that of its model, or a model cannot be verified."""
