"""Two engines that turn the same training: a plain loop, and mmengine's Runner for mixed precision and several ranks.

The loop starts in no time; the Runner takes a second or more to start (its hooks import OpenCV) and writes a log of its
own into the run's scratch folder. Both take their steps from ``ctx``, so progress, ``--max-steps`` and kept states
are the suite's.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchsuite.core import MissingDependency, RunContext
from benchsuite_emo.optimising import Training

__all__ = ["Batches", "run_training"]

_NO_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
"""What the Runner does by itself and the suite does here."""

Batches = Callable[[int], Any]
"""Number of the step to its batch, on the CPU; a pure function."""


def run_training(
    training: Training,
    batches: Batches,
    ctx: RunContext,
    engine: str,
    workers: int,
    amp: bool,
    sync_norms: bool = False,
) -> None:
    """Train to the end.

    Parameters
    ----------
    training, batches
        What learns, from what.
    ctx
        Gives steps, device and kept states.
    engine
        ``loop`` or ``runner``.
    workers
        Processes that prepare batches; 0 prepares them here.
    amp
        Mixed precision; on a GPU only, elsewhere it is left out and said so.
    sync_norms
        Whether batch norms of several ranks share their statistics; of ``runner``.
    """
    if amp and not ctx.device.startswith("cuda"):
        ctx.log.info("mixed precision is for GPUs: this training runs in float32")
        amp = False
    torch.manual_seed(ctx.seed_for("run", "training"))
    if engine == "runner":
        _with_runner(training, batches, ctx, workers, amp, sync_norms)
    else:
        _with_loop(training, batches, ctx, workers, amp)
    training.finish()


def _with_loop(training: Training, batches: Batches, ctx: RunContext, workers: int, amp: bool) -> None:
    stream = _Stream(batches, training.rates.total, workers)
    scaler = torch.amp.GradScaler(enabled=amp)
    for step in ctx.resumable("training", training.rates.total, training.parts | ({"scaler": scaler} if amp else {})):
        training.begin(step)
        batch = moved(stream.next(step), ctx.device)
        with torch.autocast(ctx.device.partition(":")[0], enabled=amp):
            loss = training.loss(batch)
        if amp:
            training.optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(training.optimizer)
            if training.clip:
                nn.utils.clip_grad_norm_(training.network.parameters(), training.clip)
            scaler.step(training.optimizer)
            scaler.update()
        else:
            training.update(loss)
        training.end(step)


def _with_runner(
    training: Training, batches: Batches, ctx: RunContext, workers: int, amp: bool, sync_norms: bool
) -> None:
    if importlib.util.find_spec("mmengine") is None:
        raise MissingDependency("engine=runner needs mmengine: pip install 'benchsuite[mobile]', or --set engine=loop")
    from mmengine.hooks import Hook
    from mmengine.model import BaseModel
    from mmengine.optim import AmpOptimWrapper, OptimWrapper
    from mmengine.runner import IterBasedTrainLoop, Runner

    class Learner(BaseModel):
        """The training as mmengine's models are: its network by name, its loss as "loss"."""

        def __init__(self) -> None:
            super().__init__()
            self.network = training.network

        def forward(self, *batch: Any, mode: str = "loss") -> dict[str, Tensor]:
            return {"loss": training.loss(batch)}

        def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
            with optim_wrapper.optim_context(self):
                loss = self(*moved(data, ctx.device))["loss"]
            optim_wrapper.update_params(loss)
            return {"loss": loss.detach()}

    class Steps(Hook):
        """What a step does besides the gradient."""

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            training.begin(runner.iter)

        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            training.end(runner.iter)

    class Loop(IterBasedTrainLoop):
        """Takes its steps from the suite, and so begins where a killed run stopped."""

        def run(self) -> nn.Module:
            self.runner.call_hook("before_train")
            self.runner.call_hook("before_train_epoch")
            # Whatever was drawn while the Runner was built must not tell the engines apart.
            torch.manual_seed(ctx.seed_for("run", "training"))
            scaler = getattr(self.runner.optim_wrapper, "loss_scaler", None)
            parts = training.parts | ({"scaler": scaler} if scaler is not None else {})
            for step in ctx.resumable("training", self._max_iters, parts):
                self._iter = step
                self.run_iter(stream.next(step))
            self.runner.call_hook("after_train_epoch")
            self.runner.call_hook("after_train")
            found: nn.Module = self.runner.model
            return found

    total = training.rates.total
    stream = _Stream(batches, total, workers)
    wrapper = AmpOptimWrapper if amp else OptimWrapper
    runner = Runner(
        model=Learner(),
        work_dir=str(ctx.workdir / "mmengine"),
        train_dataloader=DataLoader(_Steps(batches, total), batch_size=None),
        train_cfg={"by_epoch": False, "max_iters": total},
        optim_wrapper=wrapper(
            optimizer=training.optimizer, clip_grad={"max_norm": training.clip} if training.clip else None
        ),
        default_hooks=dict.fromkeys(_NO_HOOKS),
        custom_hooks=[Steps()],
        launcher="pytorch" if "LOCAL_RANK" in os.environ else "none",
        log_level="WARNING",
        randomness={"seed": ctx.seed_for("run", "training")},
        experiment_name="training",
        default_scope=None,
        cfg={"sync_bn": "torch"} if sync_norms else None,  # only done where there are several ranks
    )
    runner._train_loop = Loop(runner, runner._train_dataloader, max_iters=total)
    runner.train()


class _Steps(Dataset[Any]):
    """Batches by number, for loaders."""

    def __init__(self, batches: Batches, total: int) -> None:
        self.batches, self.total = batches, total

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, step: int) -> Any:
        return self.batches(step)


class _Stream:
    """Batches in order from any step on, prepared here or by processes."""

    def __init__(self, batches: Batches, total: int, workers: int) -> None:
        self.batches, self.total, self.workers = batches, total, workers
        self._coming: Iterator[Any] | None = None

    def next(self, step: int) -> Any:
        if not self.workers:
            return self.batches(step)
        if self._coming is None:
            steps = _Steps(self.batches, self.total)
            loader = DataLoader(
                steps,
                batch_size=None,
                sampler=range(step, self.total),
                num_workers=self.workers,
                prefetch_factor=4,
                generator=torch.Generator(),  # the global one is the training's
            )
            self._coming = iter(loader)
        return next(self._coming)


def moved(batch: Any, device: str) -> Any:
    """Return a batch, tensors in lists and tuples, on another device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    return type(batch)(moved(part, device) for part in batch)
