"""One exception class per cause, under one base class.

A message is one line: what is wrong, what was expected, what was found, what to do. The command line prints it and
exits with `exit_code`: 2 for bad input, 1 for a failure at run time.
"""

from __future__ import annotations


class LcsbError(Exception):
    """Base of every error that the toolkit raises on purpose."""

    exit_code = 2


class OptionError(LcsbError):
    """An option's value is out of range or does not fit the others."""


class OutputExistsError(LcsbError):
    """The output path exists and `--force` was not given."""


class CheckpointError(LcsbError):
    """A model's checkpoint is missing a file or tensor, is truncated, or has tensors of the wrong shape."""


class UnsupportedModelError(LcsbError):
    """A checkpoint is well formed but of an architecture, quantisation or option that is not supported."""


class TokenizerError(LcsbError):
    """A tokenizer is missing, unreadable, or produced tokens outside the model's vocabulary."""


class TemplateTimeError(TokenizerError):
    """A chat template took longer than it may. It is not asked again."""


class DataError(LcsbError):
    """A data file is empty, malformed, or leaves nothing to train on."""


class BundleError(LcsbError):
    """A TrainingBundle is missing a file, or its manifest is malformed."""


class BundleVersionError(BundleError):
    """A TrainingBundle was written by another format version than this one reads."""


class IntegrityError(BundleError):
    """A file of a TrainingBundle does not have the size or the SHA-256 that the manifest states."""


class AdapterError(LcsbError):
    """An adapter file does not belong to the bundle: other names, shapes, rank or alpha."""


class RunCheckpointError(LcsbError):
    """A run's checkpoint is damaged, malformed, or of another run."""


class RunBusyError(LcsbError):
    """Another process uses the same directory of checkpoints."""


class MissingDependencyError(LcsbError):
    """A runtime or an optional package is not installed in this environment."""


class RuntimeVersionError(LcsbError):
    """The installed runtime is too old for a bundle's programs, or was built without an operator that they need."""


class MemoryBudgetError(LcsbError):
    """A run is predicted not to fit into the memory budget; nothing was started."""


class RunFailure(LcsbError):
    """A run that started could not go on."""

    exit_code = 1


class MemoryBudgetExceeded(RunFailure):
    """A run exceeded its memory budget and was stopped."""


class NonFiniteLossError(RunFailure):
    """A loss became NaN or infinite, or an update made what no loss can be computed with. What was seen to give a finite loss is kept."""


class GoldenTraceError(RunFailure):
    """A runtime does not reproduce the bundle's golden trace."""


class StorageError(RunFailure):
    """A file could not be written: the disk is full or the directory is not writable."""


class PrintingError(RunFailure):
    """All that was asked for is done; its result could not be printed."""


class PhoneError(RunFailure):
    """No phone is connected that takes a bundle, or adb or devicectl failed."""
