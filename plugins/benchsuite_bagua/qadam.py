"""QAdam: Adam whose momenta are communicated in low precision once the second moment has settled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from benchsuite_bagua.config import QAdamConfig


class QAdam(torch.optim.Optimizer):
    """The optimiser of one rank.

    With k counting steps from 1 and w warm-up steps: as long as ``averages_gradients`` the gradients it is
    given must be the ranks' mean. Afterwards (k > w) it must be given, in place of gradients, the mean of
    what `local_momentum` returns on every rank.

    ``official``: at k = w nothing is updated, the weights move by the momentum of step w - 1; the second moment
    is frozen from then on while its bias correction goes on growing. ``fixed``: step w is an ordinary step of
    Adam, and the bias correction is frozen together with the second moment.

    Source: ``bagua/torch_api/algorithms/q_adam.py`` of BaguaSys/bagua.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], config: QAdamConfig) -> None:
        super().__init__(parameters, {"lr": config.lr})
        self._config = config
        self._steps = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }

    @property
    def averages_gradients(self) -> bool:
        """Whether the step that comes next still belongs to the warm-up."""
        return self._steps < self._config.warmup_steps

    @torch.no_grad()
    def local_momentum(self, parameter: torch.nn.Parameter, gradient: Tensor) -> Tensor:
        """Return the first moment as this rank's own gradient would update it."""
        config = self._config
        if config.mode == "fixed" and config.weight_decay:
            gradient = gradient + config.weight_decay * parameter
        momentum: Tensor = self.state[parameter]["exp_avg"]
        return momentum.mul(config.beta1).add_(gradient, alpha=1 - config.beta1)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the weights by one step."""
        config = self._config
        self._steps += 1
        last_adam_step = config.warmup_steps - (config.mode == "official")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if self._steps <= last_adam_step:
                    gradient = parameter.grad
                    if config.weight_decay:
                        gradient = gradient + config.weight_decay * parameter
                    state["exp_avg"].mul_(config.beta1).add_(gradient, alpha=1 - config.beta1)
                    state["exp_avg_sq"].mul_(config.beta2).addcmul_(gradient, gradient, value=1 - config.beta2)
                elif self._steps > config.warmup_steps:
                    state["exp_avg"].copy_(parameter.grad)
                self._move(parameter, state, group["lr"])

    def _move(self, parameter: torch.nn.Parameter, state: dict[str, Tensor], lr: float) -> None:
        config = self._config
        settled = self._steps if config.mode == "official" else min(self._steps, config.warmup_steps)
        first_correction = 1 - config.beta1**self._steps
        second_correction = 1 - config.beta2**settled
        denominator = (state["exp_avg_sq"].sqrt() / second_correction**0.5).add_(config.eps)
        parameter.addcdiv_(state["exp_avg"], denominator, value=-lr / first_correction)
