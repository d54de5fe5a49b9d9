"""What both engines of a training share: groups of weight decay, averaged weights, and one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchsuite_emo.schedule import Rates

__all__ = ["Average", "Training", "decay_groups"]

Objective = Callable[[nn.Module, Any], Tensor]
"""Network and batch to the loss."""

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


def decay_groups(network: nn.Module, weight_decay: float, rule: str) -> list[dict[str, Any]]:
    """Return groups of learning parameters for an optimiser: the decaying ones, then the others.

    Parameters
    ----------
    network
        Its frozen parameters are left out.
    weight_decay
        Of the first group.
    rule
        ``matrices``: biases and tensors of at most one dimension do not decay. ``no-norms``: what has "norm" in its
        name does not.
    """
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            spared = "norm" in name if rule == "no-norms" else parameter.ndim <= 1 or name.endswith(".bias")
            groups[spared].append(parameter)
    return [
        {"params": groups[0], "weight_decay": weight_decay},
        {"params": groups[1], "weight_decay": 0.0},
    ]


class Average:
    """Exponential average of every floating tensor of a network, statistics of batch norms included.

    It starts at the network and is not corrected for that: with a decay of .9998 it lags by some ten thousand steps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network; counters are copied."""
        for name, value in network.state_dict().items():
            own = self.values[name]
            if value.is_floating_point():
                own.mul_(self.decay).add_(value, alpha=1 - self.decay)
            else:
                own.copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages."""
        return self.values

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Set the averages."""
        for name, value in state.items():
            self.values[name].copy_(value)


@dataclass
class _Best:
    score: float
    state: dict[str, Tensor]

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.score, self.state = state["score"], state["state"]


class Training:
    """A network on its way: what happens in a step, whichever engine turns the wheel.

    An engine calls, for each step, `begin`, `loss`, then ``update(loss)`` of its own (gradients, clipping,
    optimiser), and `end`; after the last step `finish`.

    Parameters
    ----------
    network, objective
        What learns, and its loss of a batch.
    rates, clip
        Of AdamW, and the bound on the norm of gradients (0: none).
    groups
        Of parameters.
    ema
        Decay of averaged weights; 0 keeps none.
    steady
        Modules that stay in evaluation mode.
    score, look_every
        Quality of the network on what is judged, asked for every so many steps, the best state being kept; or None.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        rates: Rates,
        groups: list[dict[str, Any]],
        *,
        clip: float = 0.0,
        ema: float = 0.0,
        steady: Iterable[nn.Module] = (),
        score: Callable[[], float] | None = None,
        look_every: int = 1,
    ) -> None:
        self.network, self.objective, self.rates, self.clip = network, objective, rates, clip
        self.optimizer = torch.optim.AdamW(groups, lr=rates(0), betas=_BETAS, eps=_EPSILON)
        self.average = Average(network, ema) if ema else None
        self.steady, self.score, self.look_every = tuple(steady), score, look_every
        self._best = _Best(-1.0, {})
        self.curve: list[float] = []

    @property
    def parts(self) -> dict[str, Any]:
        """What a kept state must hold."""
        found: dict[str, Any] = {
            "network": self.network,
            "optimizer": self.optimizer,
            "best": self._best,
            "curve": self.curve,
        }
        return found | ({"average": self.average} if self.average is not None else {})

    def begin(self, step: int) -> None:
        """Set modes and the rate."""
        self.network.train()
        for module in self.steady:
            module.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates(step)

    def loss(self, batch: Any) -> Tensor:
        """Return the loss of a batch."""
        loss = self.objective(self.network, batch)
        self.curve.append(float(loss.detach()))
        return loss

    def update(self, loss: Tensor) -> None:
        """Take one step of the optimiser."""
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], self.clip)
        self.optimizer.step()

    def end(self, step: int) -> None:
        """Average, and look at what is judged if that is allowed and due."""
        if self.average is not None:
            self.average.update(self.network)
        if self.score is not None and ((step + 1) % self.look_every == 0 or step + 1 == self.rates.total):
            self._look(self.network.state_dict())
            if self.average is not None:
                own = _copied(self.network.state_dict())
                self._look(self.average.values)
                self.network.load_state_dict(own)

    def finish(self) -> None:
        """Leave the network with the weights that count: the best ones looked at, else averaged, else last ones."""
        if self._best.state:
            self.network.load_state_dict(self._best.state)
        elif self.average is not None:
            self.network.load_state_dict(self.average.values)
        self.network.eval()

    def _look(self, state: dict[str, Tensor]) -> None:
        assert self.score is not None
        state = _copied(state)
        self.network.load_state_dict(state)
        score = self.score()
        if score > self._best.score:
            self._best.score, self._best.state = score, state


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
