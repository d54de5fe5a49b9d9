"""The command line: parses, calls, prints. Heavy imports happen inside the commands: listing stays instant."""

from benchsuite.cli.entry import main

__all__ = ["main"]
