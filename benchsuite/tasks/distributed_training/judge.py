"""The mean of the ranks' models, their distance from it, the time to a loss; the answers and files of both tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchsuite.datasets.tabular_digits.reader import TabularDataset
from benchsuite.tasks.distributed_training.contract import DistributedTrainingProtocol
from benchsuite.tasks.distributed_training.data_parallel import RankReport
from benchsuite.tasks.distributed_training.models import build_model, classify


@dataclass(frozen=True)
class Judged:
    """The mean model's class probabilities (samples, classes), each rank's own classes, the ranks' distance."""

    probabilities: NDArray[Any]
    local_classes: list[NDArray[Any]]
    consensus_distance: float


def judge(
    reports: Sequence[RankReport], dataset: TabularDataset, samples: NDArray[Any], protocol: DistributedTrainingProtocol
) -> Judged:
    """Let the mean model, and every rank's own, classify the samples."""
    model = build_model(dataset.features.shape[1], dataset.num_classes, protocol).eval()
    features = torch.from_numpy(dataset.features[samples])
    names = [name for name, _ in model.named_parameters()]
    local = [_probabilities(model, report.state, features).argmax(axis=1) for report in reports]
    mean = _probabilities(model, mean_state([report.state for report in reports]), features)
    weights = torch.stack([torch.cat([report.state[name].reshape(-1) for name in names]) for report in reports])
    return Judged(mean, local, consensus_distance(weights))


def _probabilities(model: nn.Module, state: dict[str, Tensor], features: Tensor) -> NDArray[Any]:
    model.load_state_dict(state)
    return classify(model, features)


def mean_state(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of every float tensor (buffers included); other tensors are those of rank 0."""
    return {
        name: torch.stack([state[name] for state in states]).double().mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }


def consensus_distance(weights: Tensor) -> float:
    """Return max_i ||x_i - mean|| / ||mean|| of weights (n, N); 0 if all ranks agree bit for bit."""
    if bool((weights == weights[0]).all()):
        return 0.0
    mean = weights.double().mean(dim=0)
    return float(max((own - mean).norm() for own in weights.double()) / mean.norm())


def time_to_loss(losses: Sequence[float], seconds: Sequence[float], target: float, window: int = 20) -> float | None:
    """Return the seconds until the mean of the last ``window`` losses is at most ``target``, or None.

    Parameters
    ----------
    losses, seconds
        Training loss of each step, and when the step was done (seconds since the start).
    """
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(losses, dtype=np.float64))])
    trailing = (sums[window:] - sums[:-window]) / window
    reached = np.flatnonzero(trailing <= target)
    return float(seconds[reached[0] + window - 1]) if len(reached) else None


def with_other_answers(dataset: TabularDataset) -> TabularDataset:
    """Return a data set whose test samples are all of another class."""
    labels = dataset.labels.copy()
    labels[dataset.test] = (labels[dataset.test] + 1) % dataset.num_classes
    return replace(dataset, labels=labels)


def write_predictions(path: Any, samples: np.ndarray, probabilities: np.ndarray) -> None:
    """Write one row a sample: its number and its class probabilities."""
    header = ",".join(["sample", *(f"probability_{c}" for c in range(probabilities.shape[1]))])
    formats = ["%d"] + ["%.9g"] * probabilities.shape[1]
    table = np.column_stack([samples, probabilities])
    np.savetxt(path, table, fmt=formats, delimiter=",", header=header, comments="")


def write_losses(path: Any, losses: Sequence[Sequence[float]]) -> None:
    """Write one row a step and one column a rank."""
    header = ",".join(f"rank_{rank}" for rank in range(len(losses)))
    np.savetxt(path, np.asarray(losses).T, fmt="%.9g", delimiter=",", header=header, comments="")
