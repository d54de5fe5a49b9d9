"""The global random states of a run."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and (if it is loaded) torch's global generators."""
    import numpy

    random.seed(seed)
    numpy.random.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


@contextlib.contextmanager
def random_state(seed: int) -> Iterator[None]:
    """Run a block under a random state of its own; the outer one continues as if it had not run."""
    import numpy

    torch = sys.modules.get("torch")
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    torch_state = torch.get_rng_state() if torch else None
    cuda_states = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else None
    seed_everything(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
        if torch is not None:
            torch.set_rng_state(torch_state)
            if cuda_states is not None:
                torch.cuda.set_rng_state_all(cuda_states)
