"""The settings of plain distillation and of FairGNN. No torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlainDistillationConfig:
    """Settings of a graph network taught as Hinton et al. do.

    ``soft_weight`` is the share of the teacher in the loss, ``temperature`` divides the logits of both; the labels
    have the rest. ``patience``: training ends after so many epochs in a row without a new (or equal) best validation
    accuracy.
    """

    epochs: int = 1000
    patience: int = 500
    num_layers: int = 2
    hidden: int = 64
    dropout: float = 0.5
    lr: float = 0.01
    weight_decay: float = 0.0005
    temperature: float = 4.0
    soft_weight: float = 0.9

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature:g}")
        if not 0.0 <= self.soft_weight <= 1.0:
            raise ValueError(f"soft_weight {self.soft_weight:g} is not a share between 0 and 1")


@dataclass(frozen=True)
class FairGNNConfig:
    """Settings of FairGNN; the defaults are those of its authors' script for a GCN on pokec-z.

    ``alpha`` weighs the covariance of prediction and group, ``beta`` the adversary. Of the epochs whose validation
    accuracy is at most ``accuracy_slack`` below the teacher's, the fairest on the validation nodes is kept.
    """

    epochs: int = 2000
    hidden: int = 64
    dropout: float = 0.5
    lr: float = 0.001
    weight_decay: float = 0.00001
    alpha: float = 100.0
    beta: float = 1.0
    accuracy_slack: float = 0.05
