"""Errors that a user can act on: each message is one line that names what is wrong and the fix.

Everything the suite raises on bad input derives from `CPPOError`, so that the runner can print the message
without a traceback, and a caller can tell a user's mistake from a bug.
"""

from __future__ import annotations


class CPPOError(ValueError):
    """A mistake the user can mend; the message says how."""


class DatasetError(CPPOError):
    """A problem or a data file that cannot be used: names file, row and field."""


class ParameterError(CPPOError):
    """A parameter file that does not fit its notebook: names file, key and the nearest valid key."""


class MissingArtefactError(CPPOError):
    """An input that an earlier notebook writes is not there: names that notebook."""


class DamagedError(CPPOError):
    """A file that is not what the suite wrote: names what to delete, so that it is made again."""


class ModelError(CPPOError):
    """A model folder or hub id that cannot be loaded."""


class TrainingError(CPPOError):
    """A training run that cannot go on as its parameters say: names the step."""


class AuditError(CPPOError):
    """A joint run would have too little to learn from: says what is too sparse, and which stage to go back to."""


class IsolationError(CPPOError):
    """The machine lacks an isolation layer that model-written code requires."""
