"""The commands put together, and what happens to their errors.

Exit codes: 0 all well, 1 a run failed or a check did not hold, 2 a mistake in the command, 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from benchsuite.cli._shared import INTERRUPTED
from benchsuite.core.errors import UserError

# What is typed -> module of this package and function. Only what is called is imported.
_COMMANDS = {
    "list": "listing:list_everything",
    "info": "listing:info",
    "run": "running:run",
    "rerun": "running:rerun",
    "leaderboard": "boards:leaderboard",
    "claims": "boards:claims",
    "score": "running:score",
    "doctor": "upkeep:doctor",
    "results list": "stored:results_list",
    "results show": "stored:results_show",
    "results compare": "stored:results_compare",
    "results validate": "stored:results_validate",
    "results publish": "stored:results_publish",
    "results carry": "stored:results_carry",
    "results remove": "stored:results_remove",
    "plugin new": "extending:plugin_new",
    "plugin list": "extending:plugin_list",
    "plugin check": "extending:plugin_check",
    "cache info": "upkeep:cache_info",
    "cache clear": "upkeep:cache_clear",
    "data list": "listing:data_list",
    "data info": "listing:data_info",
    "data verify": "listing:data_verify",
}
_GROUPS = {
    "results": "Look at stored results.",
    "plugin": "Write and check plugins.",
    "cache": "The cache of steps that runs share.",
    "data": "The data sets.",
}


def application(word: str | None = None) -> typer.Typer:
    """Return the command line: the commands that begin with ``word``, or all where none does."""
    app = typer.Typer(
        name="benchsuite",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback(help="Run methods on tasks and read honest leaderboards.")(_nothing)
    chosen = {name: place for name, place in _COMMANDS.items() if name.split()[0] == word} or _COMMANDS
    groups: dict[str, typer.Typer] = {}
    for name, place in chosen.items():
        module, _, function = place.partition(":")
        group, _, command = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(help=_GROUPS[group], no_args_is_help=True, rich_markup_mode=None)
            app.add_typer(groups[group], name=group)
        owner = groups[group] if group else app
        owner.command(command)(_at_home(getattr(importlib.import_module(f"benchsuite.cli.{module}"), function)))
    return app


def _at_home(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that understands ``~`` in all its paths, also where no shell has seen it (``--out=~/x``)."""

    def expanded(value: Any) -> Any:
        if isinstance(value, list):
            return [expanded(item) for item in value]
        return value.expanduser() if isinstance(value, Path) else value

    @functools.wraps(function)
    def called(**options: Any) -> Any:
        try:
            return function(**{name: expanded(value) for name, value in options.items()})
        except RuntimeError as error:
            if "home directory" in str(error):
                raise UserError(f"{error}: write the folder out") from None
            raise

    return called


def _nothing() -> None:
    """Keep a single command from becoming the whole command line."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _interrupt)
    if not debug:
        warnings.simplefilter("ignore")  # libraries' deprecations are for developers
    try:
        code = application(arguments[0] if arguments else None)(arguments, standalone_mode=False) or 0
        sys.stdout.flush()
    except UserError as error:
        if debug:
            raise
        _fail(str(error), 2)
    except BrokenPipeError:
        _leave_output()
        sys.exit(1)
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):
            raise
        _leave_output()
        _fail(f"cannot write the output ({error.strerror}): make room, or send it elsewhere", 1)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except Exception as error:
        message = getattr(error, "format_message", None)  # what typer raises for a wrong command line
        if message is None and type(error).__name__ != "Abort":
            raise
        _fail(" ".join(message().split()) if message else "aborted", 2)
    sys.exit(code)


def _leave_output() -> None:
    """Let what is still to be written go nowhere: nobody reads it, or it has no room."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> NoReturn:
    print(f"benchsuite: {message}", file=sys.stderr)
    sys.exit(code)
