"""The rows of RELIANT: two students, each vanilla, with the bias term alone, and with the proxy of bias."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchsuite.core import ConfigError, RunContext
from benchsuite.tasks.fair_distillation.contract import FairDistiller, Student, StudentGraph, Teacher, Validation
from benchsuite_reliant.config import (
    BiasTermCPFConfig,
    BiasTermGraphAKDConfig,
    CPFConfig,
    GraphAKDConfig,
    ReliantCPFConfig,
    ReliantGraphAKDConfig,
)
from benchsuite_reliant.losses import Bias, Discriminators, bias_measure, scaled_lambda
from benchsuite_reliant.model import (
    BiasProxy,
    GlobalDiscriminator,
    LocalDiscriminator,
    LogitDiscriminator,
    PLPStudent,
    ProxyMode,
    SGCStudent,
)
from benchsuite_reliant.training import (
    Graph,
    TeacherOutput,
    cpf_probabilities,
    graph_akd_probabilities,
    train_cpf,
    train_graph_akd,
)

_MODEL_FILE = "model.pt"


class TeacherItself(FairDistiller):
    """The teacher's own predictions: what distillation starts from."""

    def distil(self, graph: StudentGraph, teacher: Teacher, validation: Validation, ctx: RunContext) -> Student:
        """See `FairDistiller.distil`; nothing is trained."""
        return Student(np.exp(teacher.log_probabilities), teacher.parameters)


class _ReliantRow(FairDistiller):
    """What all rows share: seeds, tensors, the proxy, and saving or loading the trained student."""

    config: Any

    def distil(self, graph: StudentGraph, teacher: Teacher, validation: Validation, ctx: RunContext) -> Student:
        """See `FairDistiller.distil`.

        With ``--weights`` nothing is trained: the student saved by an earlier run predicts.
        """
        torch.manual_seed(ctx.seed_for("run", "student"))
        device = torch.device(ctx.device)
        visible = Graph(
            features=torch.from_numpy(graph.features).to(device),
            edge_index=torch.from_numpy(graph.edge_index).to(device),
            train=torch.from_numpy(graph.train).to(device),
            train_labels=torch.from_numpy(graph.train_labels).to(device),
            labels=None if graph.labels is None else torch.from_numpy(graph.labels).to(device),
        )
        sensitive = torch.from_numpy(graph.sensitive).to(device)
        output = TeacherOutput(
            torch.from_numpy(teacher.log_probabilities).to(device), torch.from_numpy(teacher.embedding).to(device)
        )
        num_nodes, num_features = graph.features.shape
        mode: ProxyMode | Literal["none"] = getattr(self.config, "proxy_mode", "none")
        width = num_features + (self.config.proxy_width if mode == "append" else 0)
        student = self._student(num_nodes, width, graph.num_classes, output).to(device)
        proxy = None
        if mode != "none":
            groups = torch.stack([sensitive, 1 - sensitive], dim=1).float()  # (N, 2)
            fixed = groups if self.config.proxy == "fixed" else None
            proxy = BiasProxy(num_nodes, self.config.proxy_width, mode, fixed).to(device)
        if ctx.weights is not None:
            _load(ctx, student, proxy)
            probabilities = self._predict(student, proxy, visible)
        else:
            probabilities = self._train(student, proxy, visible, output, sensitive, validation, ctx)
        if "model" in ctx.wanted_artifacts:
            torch.save(_state(student, proxy), ctx.artifact(_MODEL_FILE))
        return Student(probabilities.cpu().numpy(), sum(p.numel() for p in student.parameters() if p.requires_grad))

    @abstractmethod
    def _student(self, num_nodes: int, in_features: int, num_classes: int, teacher: TeacherOutput) -> nn.Module:
        """Return an untrained student."""

    @abstractmethod
    def _train(
        self,
        student: Any,
        proxy: BiasProxy | None,
        graph: Graph,
        teacher: TeacherOutput,
        sensitive: Tensor,
        validation: Validation,
        ctx: RunContext,
    ) -> Tensor:
        """Train the student and return probabilities (N, C)."""

    @abstractmethod
    def _predict(self, student: Any, proxy: BiasProxy | None, graph: Graph) -> Tensor:
        """Return probabilities (N, C) of a trained student."""

    def _bias(self, nodes: Tensor, graph: Graph, teacher: TeacherOutput, sensitive: Tensor) -> Bias:
        """Return L_bias over ``nodes``; equal opportunity takes only labels that the protocol shows.

        Raises
        ------
        ConfigError
            If ``eo_labels=all`` meets a protocol that shows the labels of the training nodes alone.
        """
        if self.config.objective == "sp":
            return bias_measure("sp", nodes, sensitive)
        if self.config.eo_labels == "train":
            return bias_measure("eo", graph.train, sensitive, graph.train_labels)
        if self.config.eo_labels == "all":
            if graph.labels is None:
                raise ConfigError(
                    "eo_labels=all compares by the labels of all nodes, which students do not see: add"
                    " --set task.student_labels=all (a table of its own, since test labels leak)"
                )
            return bias_measure("eo", nodes, sensitive, graph.labels[nodes])
        return bias_measure("eo", nodes, sensitive, teacher.log_probabilities.argmax(dim=1)[nodes])


class VanillaCPF(_ReliantRow):
    """The CPF student: parametrised label propagation with an MLP, and nothing about bias."""

    Config: ClassVar[type] = CPFConfig

    def _student(self, num_nodes: int, in_features: int, num_classes: int, teacher: TeacherOutput) -> PLPStudent:
        c = self.config
        return PLPStudent(
            num_nodes, in_features, num_classes, c.num_layers, c.hidden, c.feature_dropout, c.attention_dropout
        )

    def _train(
        self,
        student: PLPStudent,
        proxy: BiasProxy | None,
        graph: Graph,
        teacher: TeacherOutput,
        sensitive: Tensor,
        validation: Validation,
        ctx: RunContext,
    ) -> Tensor:
        c = self.config
        weight = getattr(c, "bias_weight", 0.0)
        nodes = graph.unlabelled
        if getattr(c, "scale_lambda", False):
            weight = scaled_lambda(weight, len(nodes))
        return train_cpf(
            student,
            proxy,
            graph,
            teacher.log_probabilities.exp(),
            bias=self._bias(nodes, graph, teacher, sensitive) if weight else None,
            bias_weight=weight,
            lr=c.lr,
            weight_decay=c.weight_decay,
            patience=c.patience,
            validation_accuracy=lambda logits: validation.accuracy(logits.cpu().numpy()),
            steps=lambda parts: ctx.resumable("student", c.epochs, parts),
        )

    def _predict(self, student: PLPStudent, proxy: BiasProxy | None, graph: Graph) -> Tensor:
        return cpf_probabilities(student, proxy, graph)

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the student at its configured size on a ring of six nodes."""
        edge_index, train = _ring(6), torch.tensor([0, 3])
        inputs = (torch.randn(6, 18), edge_index, train, torch.tensor([0, 1]))
        yield self._student(6, 18, 2, TeacherOutput(inputs[0], inputs[0])), inputs


class BiasTermCPF(VanillaCPF):
    """The CPF student trained with the bias term, without a proxy (ablation)."""

    Config: ClassVar[type] = BiasTermCPFConfig


class ReliantCPF(VanillaCPF):
    """RELIANT with a CPF student. With ``proxy_mode=none`` and lambda 0 it is the vanilla student."""

    Config: ClassVar[type] = ReliantCPFConfig

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the student and the proxy."""
        yield from super().forward_examples()
        mode = self.config.proxy_mode
        if mode != "none":
            yield BiasProxy(6, self.config.proxy_width, mode), (torch.randn(6, 18),)


class VanillaGraphAKD(_ReliantRow):
    """The GraphAKD student: three graph convolutions taught by three discriminators."""

    Config: ClassVar[type] = GraphAKDConfig

    def _student(self, num_nodes: int, in_features: int, num_classes: int, teacher: TeacherOutput) -> SGCStudent:
        # The discriminators compare embeddings, so the student is as wide as its teacher.
        return SGCStudent(in_features, num_classes, teacher.embedding.shape[1], self.config.dropout)

    def _train(
        self,
        student: SGCStudent,
        proxy: BiasProxy | None,
        graph: Graph,
        teacher: TeacherOutput,
        sensitive: Tensor,
        validation: Validation,
        ctx: RunContext,
    ) -> Tensor:
        c = self.config
        weight = getattr(c, "bias_weight", 0.0)
        if getattr(c, "scale_lambda", False):
            raise ConfigError("scale_lambda is for CPF, whose loss grows with the graph: GraphAKD's is averaged")
        every = torch.arange(len(graph.features), device=graph.features.device)
        width, num_classes = teacher.embedding.shape[1], teacher.log_probabilities.shape[1]
        device = graph.features.device
        return train_graph_akd(
            student,
            proxy,
            Discriminators(
                LogitDiscriminator(num_classes).to(device),
                LocalDiscriminator(width).to(device),
                GlobalDiscriminator(width).to(device),
            ),
            graph,
            teacher,
            student_bias=self._bias(graph.train, graph, teacher, sensitive) if weight else None,
            proxy_bias=self._bias(every, graph, teacher, sensitive) if weight else None,
            bias_weight=weight,
            lr=c.lr,
            discriminator_lr=c.discriminator_lr,
            proxy_lr=c.proxy_lr,
            weight_decay=c.weight_decay,
            validation_cross_entropy=lambda scores: validation.cross_entropy(scores.cpu().numpy()),
            steps=lambda parts: ctx.resumable("student", c.epochs, parts),
        )

    def _predict(self, student: SGCStudent, proxy: BiasProxy | None, graph: Graph) -> Tensor:
        return graph_akd_probabilities(student, proxy, graph)

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the student at full width and the three discriminators on a ring of six nodes."""
        features, edge_index, embedding = torch.randn(6, 18), _ring(6), torch.randn(6, 64)
        yield self._student(6, 18, 2, TeacherOutput(features, embedding)), (features, edge_index)
        yield LogitDiscriminator(2), (torch.randn(6, 2),)
        yield LocalDiscriminator(64), (embedding, edge_index)
        yield GlobalDiscriminator(64), (embedding, torch.rand(64))


class BiasTermGraphAKD(VanillaGraphAKD):
    """The GraphAKD student trained with the bias term, without a proxy (ablation)."""

    Config: ClassVar[type] = BiasTermGraphAKDConfig


class ReliantGraphAKD(VanillaGraphAKD):
    """RELIANT with a GraphAKD student. With ``proxy_mode=none`` and lambda 0 it is the vanilla student."""

    Config: ClassVar[type] = ReliantGraphAKDConfig


def _ring(nodes: int) -> Tensor:
    """Return the edges (2, 3 * nodes) of a ring with self-loops."""
    here = torch.arange(nodes)
    there = torch.cat([here, (here + 1) % nodes, (here - 1) % nodes])
    return torch.stack([here.repeat(3), there])


def _state(student: nn.Module, proxy: BiasProxy | None) -> dict[str, Tensor]:
    state = {f"student.{key}": value for key, value in student.state_dict().items()}
    return state | ({f"proxy.{key}": value for key, value in proxy.state_dict().items()} if proxy else {})


def _load(ctx: RunContext, student: nn.Module, proxy: BiasProxy | None) -> None:
    """Load what ``_state`` saved, or a student alone in the official layout."""
    assert ctx.weights is not None
    try:
        state = torch.load(ctx.weights, map_location=ctx.device, weights_only=True)
        if not any(key.startswith("student.") for key in state):
            state = {f"student.{key}": value for key, value in state.items()}
        student.load_state_dict({k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")})
        if proxy is not None:
            proxy.load_state_dict({k.removeprefix("proxy."): v for k, v in state.items() if k.startswith("proxy.")})
    except Exception as error:  # torch raises many kinds for a file that is not what it should be
        raise ConfigError(f"--weights {ctx.weights.name} does not fit this student on this graph: {error}") from error
