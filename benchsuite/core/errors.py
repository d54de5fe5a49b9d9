"""Errors that a user meets.

Every mistake a user can make is a `UserError`: one line that says what is wrong and what to do.
The command line prints it without a traceback and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the caller, told in one line: what is wrong, what to do."""


class UnknownName(UserError):
    """A name that no registered thing of that kind has."""


class ConfigError(UserError):
    """A setting that does not exist or a value that does not fit."""


class Incompatible(UserError):
    """Things that exist but do not go together (a method and a task, say)."""


class MissingDependency(UserError):
    """An optional library is not installed."""


class DatasetNotFound(UserError):
    """A real data set is not on this disk (nothing is downloaded silently)."""


class DataError(UserError):
    """Files of a data set are there but broken."""


class StoreError(UserError):
    """A stored result cannot be read or written."""


class InvalidPrediction(ValueError):
    """A method handed its task something of the wrong shape, type or range."""


_MANY = 12  # names that still make a line which is read


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` - did you mean 'x'?`` for the closest known names, else the names there are, if they are not many."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return " - did you mean " + " or ".join(repr(match) for match in close) + "?"
    if not known:
        return " - there are none"
    if len(known) > _MANY:
        return f" - none of the {len(known)} there are is like it"
    return " - there are: " + ", ".join(known)
