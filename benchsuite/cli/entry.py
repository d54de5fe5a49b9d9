"""The commands put together, and what happens to their errors.

Exit codes: 0 all well, 1 a run failed or a check did not hold, 2 a mistake in the command, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

import typer

from benchsuite.cli import boards, extending, listing, running, stored, upkeep
from benchsuite.cli._shared import INTERRUPTED
from benchsuite.core.errors import UserError

app = typer.Typer(
    name="benchsuite",
    help="Run methods on tasks and read honest leaderboards.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("list")(listing.list_everything)
app.command()(listing.info)
app.command()(running.run)
app.command()(running.rerun)
app.command()(boards.leaderboard)
app.command()(boards.claims)
app.command()(running.score)
app.command()(upkeep.doctor)
_GROUPS: dict[str, tuple[str, dict[str, Callable[..., object]]]] = {
    "results": (
        "Look at stored results.",
        {
            "list": stored.results_list,
            "show": stored.results_show,
            "compare": stored.results_compare,
            "validate": stored.results_validate,
            "publish": stored.results_publish,
            "carry": stored.results_carry,
        },
    ),
    "plugin": (
        "Write and check plugins.",
        {"new": extending.plugin_new, "list": extending.plugin_list, "check": extending.plugin_check},
    ),
    "cache": ("The cache of steps that runs share.", {"info": upkeep.cache_info, "clear": upkeep.cache_clear}),
    "data": (
        "The data sets.",
        {"list": listing.data_list, "info": listing.data_info, "verify": listing.data_verify},
    ),
}
for _name, (_help, _commands) in _GROUPS.items():
    _group = typer.Typer(help=_help, no_args_is_help=True, rich_markup_mode=None)
    for _command, _function in _commands.items():
        _group.command(_command)(_function)
    app.add_typer(_group, name=_name)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _interrupt)
    if not debug:
        warnings.simplefilter("ignore")  # libraries' deprecations are for developers
    try:
        code = app(arguments, standalone_mode=False) or 0
    except UserError as error:
        if debug:
            raise
        _fail(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except Exception as error:
        message = getattr(error, "format_message", None)  # what typer raises for a wrong command line
        if message is None and type(error).__name__ != "Abort":
            raise
        _fail(" ".join(message().split()) if message else "aborted", 2)
    sys.exit(code)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> NoReturn:
    print(f"benchsuite: {message}", file=sys.stderr)
    sys.exit(code)
