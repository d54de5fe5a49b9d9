"""A stage of a run in a fresh process, which knows nothing but what it is handed (see `RunContext.apart`).

Started as ``python -m benchsuite.harness.apart FOLDER``: reads the call from the folder and leaves the answer there.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchsuite.core.context import RunContext
from benchsuite.core.errors import UserError
from benchsuite.harness.randomness import seed_everything

Context = TypeVar("Context", bound=RunContext)

_CALL, _ANSWER = ".call.pickle", ".answer.pickle"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class _Answer:
    """What a call came to: its value or its error, and the context with what it counted."""

    value: Any = None
    error: UserError | None = None
    trace: str = ""
    context: Any = None
    peak_gpu_memory_mb: float = 0.0


def call_apart(
    ctx: Context, function: Callable[..., Any], arguments: tuple[Any, ...], progress_fd: int | None
) -> tuple[Any, Context, float]:
    """Return the value of ``function(ctx, *arguments)`` in a fresh process, the context as it was then, and its GPU MB.

    Raises
    ------
    UserError, RuntimeError
        See `RunContext.apart`.
    """
    call, answer_file = ctx.workdir / _CALL, ctx.workdir / _ANSWER
    call.write_bytes(pickle.dumps((ctx, function, arguments)))
    descriptors = () if progress_fd is None else (progress_fd,)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-m", "benchsuite.harness.apart", str(ctx.workdir.resolve())],
        env={**os.environ, "PYTHONPATH": path},
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if not answer_file.is_file():
        how = f"was killed by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else "ended early"
        raise RuntimeError(f"the process of the stage {ctx.workdir.name!r} {how}, exit code {done.returncode}")
    answer: _Answer = pickle.loads(answer_file.read_bytes())
    if answer.error is not None:
        raise answer.error
    if answer.trace:
        raise RuntimeError(f"the stage {ctx.workdir.name!r} failed: {answer.trace.strip().splitlines()[-1]}")
    return answer.value, answer.context, answer.peak_gpu_memory_mb


def main(folder: Path) -> None:
    """Make the call that lies in a folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        answer = _call(folder)
    except UserError as error:
        answer = _Answer(error=error)
    except Exception:  # the stage is a stranger's code: whatever it raised is told
        traceback.print_exc()
        answer = _Answer(trace=traceback.format_exc())
    content = pickle.dumps(answer)
    with contextlib.suppress(OSError):
        (folder / _CALL).unlink()
    (folder / _ANSWER).write_bytes(content)


def _call(folder: Path) -> _Answer:
    ctx, function, arguments = pickle.loads((folder / _CALL).read_bytes())
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(ctx.threads)
    seed_everything(ctx.seed_for(ctx.seed_axes[-1], "global"))
    value = function(ctx, *arguments)
    gpu_mb = 0.0
    if torch is not None and ctx.device.startswith("cuda"):
        gpu_mb = torch.cuda.max_memory_allocated() / 1e6
    answer = _Answer(value, context=ctx, peak_gpu_memory_mb=gpu_mb)
    pickle.dumps(answer)  # what does not pickle is told as this call's failure
    return answer


if __name__ == "__main__":
    # Under its import name, so that what is pickled here is found there.
    from benchsuite.harness import apart

    apart.main(Path(sys.argv[1]))
