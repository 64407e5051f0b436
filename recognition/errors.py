"""What a user can do wrong: one exception type per kind of mistake, each message naming the offender and the fix."""

from __future__ import annotations

from pathlib import Path


class RecognitionError(Exception):
    """A mistake that the user can mend; shown as one message, without a traceback."""


class ConfigurationError(RecognitionError):
    """A setting is unknown, out of its bounds, or does not fit the others."""


class DataError(RecognitionError):
    """Images or labels cannot be used as they are."""


class AuditError(DataError):
    """The audit found what its policies forbid. ``report`` is the folder that shows it."""

    def __init__(self, message: str, report: Path) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[type[AuditError], tuple[str, Path]]:
        return type(self), (str(self), self.report)


class DownloadError(RecognitionError):
    """A file could not be fetched whole and unchanged from any of its addresses."""


class OutOfReachError(DownloadError):
    """A host did not answer, or not to the end, however often it was asked: later it may."""


class TimeLimitError(RecognitionError, TimeoutError):
    """A stage was ended because it took longer than it may."""


class StorageError(RecognitionError):
    """The state folder cannot be written: no space, no permission."""


class ModelError(RecognitionError):
    """A model is not registered, not complete, or not one of ours."""


class ImageError(RecognitionError):
    """What was given as an image is none."""


class TrackingError(RecognitionError):
    """The tracking server or store does not answer, or does not hold what was asked for."""


class ComparisonError(RecognitionError):
    """Runs cannot be compared: not finished, not scored, of another task, or on other test images."""


class StageError(RuntimeError):
    """A stage's own process failed; the message holds the traceback of that process."""
