"""Run single tests in forks of a process that has imported the large libraries already.

Started with a folder and the names of libraries; reads one test a line, answers with pytest's exit status, a
blank and the output as JSON. Importing torch and transformers anew would take longer than most of the tests.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest


def in_a_fork(test: str) -> tuple[int, str]:
    """Return pytest's exit status and output of one test, run in a process of its own."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            status = 70
            try:
                options = ["-q", "-x", "-p", "no:xdist", "-p", "no:randomly", "--hypothesis-profile=first-failure"]
                status = int(pytest.main([*options, test]))
            finally:
                sys.stdout.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return status, output.read().decode(errors="replace")


def main(tree: Path, libraries: list[str]) -> None:
    """Serve until there are no more lines to read."""
    os.chdir(tree)
    sys.path[:0] = [str(tree), str(tree / "plugins")]
    sys.dont_write_bytecode = True
    for library in libraries:
        with contextlib.suppress(ImportError):  # an optional one; tests that need it skip
            importlib.import_module(library)
    if ours := sorted(name for name in sys.modules if name.partition(".")[0] == "benchsuite"):
        raise RuntimeError(f"{ours[0]} is imported before the fork: faults in it would be invisible")
    for line in sys.stdin:
        status, output = in_a_fork(line.strip())
        print(status, json.dumps(output), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
