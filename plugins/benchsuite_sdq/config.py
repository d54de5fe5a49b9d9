"""The settings of all rows of this plugin. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchsuite.core import ConfigError

Allocation = Literal["search", "uniform", "sensitivity", "random", "reversed", "oracle", "given"]


@dataclass(frozen=True)
class SDQConfig:
    """Settings; the defaults are those of the embedded preset.

    Attributes
    ----------
    allocation
        Where the bits of the layers come from: ``search`` (phase 1), ``uniform`` (the most that fit everywhere),
        ``sensitivity`` (Hessian traces), ``random`` (a strategy of the budget's size), ``reversed`` (the searched one
        with its ranks turned round), ``oracle`` (all maximal ones tried on held-out training pictures), ``given``.
    given
        Bits of the layers in the order of use, ``5,4,1,5``, for ``allocation=given``.
    draw
        Which random strategy of a seed.
    estimator
        Gradient of a bitwidth parameter: ``gumbel`` draws one of two bitwidths, ``interpolation`` blends them.
    granularity
        What shares a bitwidth parameter: a ``layer``, a ``block``, the ``net``, or an output channel (``kernel``).
    temperature
        Of the Gumbel-softmax.
    lambda_q, normalised_qer
        Weight of the quantisation-error regulariser; whether a layer's error is divided by its number of weights.
    beta_threshold, beta_lr
        A bitwidth parameter below the threshold decays; rate of its SGD.
    search_steps, search_optimizer, search_lr
        Phase 1 of the weights; it ends when the budget is met.
    steps, epochs
        Length of phase 2: steps, or if 0 passes over the pictures.
    batch_size, optimizer, lr, weight_decay
        Of phase 2 (batches of phase 1 too); the rate falls along half a cosine.
    distillation
        Whether phase 2 learns from the full-precision network instead of the labels.
    lambda_e, entropy_norm
        Weight of the entropy-aware bin regularisation; whether weights are rescaled before binning.
    activation
        Clip of the inputs of layers: 1 (``dorefa``), or learned (``pact``).
    probes
        Batches for Hessian traces.
    oracle_epochs, oracle_finalists, oracle_most
        Passes of each strategy in the first round, number of those that go through the whole of phase 2, and of random
        strategies where a network has too many layers to try all.
    """

    allocation: Allocation = "search"
    given: str = ""
    draw: int = 1
    estimator: Literal["gumbel", "interpolation"] = "gumbel"
    granularity: Literal["layer", "block", "net", "kernel"] = "layer"
    temperature: float = 1.0
    lambda_q: float = 0.0003
    normalised_qer: bool = False
    beta_threshold: float = 0.01
    beta_lr: float = 0.05
    search_steps: int = 3000
    search_optimizer: Literal["adam", "sgd"] = "adam"
    search_lr: float = 0.001
    steps: int = 0
    epochs: int = 20
    batch_size: int = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 0.005
    weight_decay: float = 0.0
    distillation: bool = True
    lambda_e: float = 0.1
    entropy_norm: bool = False
    activation: Literal["dorefa", "pact"] = "dorefa"
    probes: int = 8
    oracle_epochs: int = 4
    oracle_finalists: int = 4
    oracle_most: int = 16

    def __post_init__(self) -> None:
        positive = ("temperature", "beta_threshold", "beta_lr", "search_lr", "lr")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name):g}")
        if self.beta_threshold >= 1:
            raise ConfigError(f"beta_threshold is {self.beta_threshold:g}: a bitwidth parameter starts at 1, above it")
        for name in ("lambda_q", "lambda_e", "weight_decay", "steps", "epochs"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative")
        for name in ("draw", "search_steps", "probes", "oracle_epochs", "oracle_finalists", "oracle_most"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size is {self.batch_size}: batch norms need at least 2 pictures")
        if not (self.steps or self.epochs):
            raise ConfigError("give steps, or epochs with steps=0")
        if (self.allocation == "given") != bool(self.given):
            raise ConfigError("give bits with allocation=given: --set allocation=given --set given=5,4,1,5")
        self.given_bits()

    def given_bits(self) -> tuple[int, ...]:
        """Return the bits of ``given``; raises `ConfigError` for a text that is no list of whole numbers."""
        try:
            return tuple(int(part) for part in self.given.split(",") if part.strip())
        except ValueError:
            raise ConfigError(f"given is {self.given!r}: write whole numbers with commas, as 5,4,1,5") from None
