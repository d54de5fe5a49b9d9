"""The settings of RELIANT's rows. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Objective = Literal["sp", "eo"]


@dataclass(frozen=True)
class CPFConfig:
    """Settings of a CPF student; the defaults are the published ones (K = ``num_layers``)."""

    epochs: int = 1000
    patience: int = 500
    num_layers: int = 10
    hidden: int = 64
    lr: float = 0.01
    weight_decay: float = 0.01
    feature_dropout: float = 0.8
    attention_dropout: float = 0.2


@dataclass(frozen=True)
class BiasTerm:
    """Settings of the bias term.

    ``bias_weight`` is lambda. ``eo_labels`` says whose labels the equal-opportunity term compares by:
    ``train`` takes the true labels of the training nodes, ``teacher`` the teacher's predictions on the
    nodes whose labels are hidden, ``all`` their true labels as the official code does (test labels leak; needs
    the protocol ``student_labels=all``). ``scale_lambda`` keeps lambda's proportion to CPF's loss on small graphs.
    """

    bias_weight: float = 1000.0
    objective: Objective = "sp"
    eo_labels: Literal["train", "teacher", "all"] = "train"
    scale_lambda: bool = False


@dataclass(frozen=True)
class ProxyTerm:
    """Settings of the proxy of bias: what it does to the student's input, its number of columns, what fills them.

    ``proxy`` is ``learnt``, or ``fixed``: the columns s and 1 - s, averaged in training and at inference alike.
    """

    proxy_mode: Literal["append", "replace", "none"] = "append"
    proxy_width: int = 2
    proxy: Literal["learnt", "fixed"] = "learnt"

    def __post_init__(self) -> None:
        if self.proxy_width < 1:
            raise ValueError(f"proxy_width must be 1 or more, not {self.proxy_width}")
        if self.proxy == "fixed" and self.proxy_width != 2:
            raise ValueError(f"proxy=fixed has the columns s and 1 - s: leave proxy_width at 2, not {self.proxy_width}")


@dataclass(frozen=True)
class BiasTermCPFConfig(BiasTerm, CPFConfig):
    """A CPF student with the bias term."""


@dataclass(frozen=True)
class ReliantCPFConfig(ProxyTerm, BiasTerm, CPFConfig):
    """A CPF student with the bias term and the proxy."""


@dataclass(frozen=True)
class GraphAKDConfig:
    """Settings of a GraphAKD student; the defaults are the published ones."""

    epochs: int = 600
    lr: float = 0.0001
    discriminator_lr: float = 0.001
    proxy_lr: float = 0.001
    weight_decay: float = 0.0005
    dropout: float = 0.5


@dataclass(frozen=True)
class BiasTermGraphAKDConfig(BiasTerm, GraphAKDConfig):
    """A GraphAKD student with the bias term."""

    bias_weight: float = 10.0


@dataclass(frozen=True)
class ReliantGraphAKDConfig(ProxyTerm, BiasTermGraphAKDConfig):
    """A GraphAKD student with the bias term and the proxy."""
