"""Four published defenses: Neural Cleanse (classes), STRIP (inputs), spectral signatures (images), SCAn (classes).

None of them knows the trigger or the target class. Thresholds are the published ones; the ratings that they cut
are handed over as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor, nn

from benchsuite.core import RunContext
from benchsuite.metrics.backdoor import anomaly_indices
from benchsuite.tasks.distillation_backdoors.defense_contract import Case, Defense, Verdict
from benchsuite.tasks.distillation_backdoors.networks import build_network
from benchsuite_doorping.config import NeuralCleanseConfig, ScanConfig, SpectralSignaturesConfig, StripConfig

Doubles = NDArray[np.float64]

_LARGEST_INDEX = 1e9  # stands for infinity: more than half of the values are equal
_RIDGE = 1e-6
_CONVERGED = 1e-3


class _ForwardExample(Defense):
    """What the fake-CUDA check traces: a victim."""

    config: Any

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield a full-size victim."""
        yield build_network("convnet", 3, 10, 32), (torch.randn(2, 3, 32, 32),)


# --- Neural Cleanse --------------------------------------------------------------------------------------


class NeuralCleanse(_ForwardExample):
    """Looks for the smallest mask that turns every image into a class; a class with a tiny mask is suspect.

    Pixels are normalised before they reach the victim (the authors' defense code leaves this out).
    """

    Config: ClassVar[type] = NeuralCleanseConfig

    def inspect(self, case: Case, ctx: RunContext) -> Verdict:
        """See `Defense.inspect`; rates classes by their signed anomaly index."""
        generator = torch.Generator().manual_seed(ctx.seed_for("victim", "neural-cleanse"))
        norms = [self._smallest_mask(case, label, generator, ctx) for label in range(case.num_classes)]
        ratings = small_outliers(np.array(norms))
        return Verdict("classes", ratings, ratings > self.config.threshold)

    def _smallest_mask(self, case: Case, label: int, generator: torch.Generator, ctx: RunContext) -> float:
        """Return the smallest L1 norm of the mask that any epoch ended with."""
        c = self.config
        device = case.clean_images.device
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (case.mean, case.std))
        pixels = case.clean_images * std + mean
        mask = torch.rand(pixels.shape[2:], generator=generator).to(device).requires_grad_(True)
        pattern = torch.rand(pixels.shape[1:], generator=generator).to(device).requires_grad_(True)
        optimizer = torch.optim.Adam([mask, pattern], lr=c.lr)
        wanted = torch.full((len(pixels),), label, device=device)
        found = {"smallest": float("inf"), "epochs since": 0}
        parts = {"mask": mask, "pattern": pattern, "optimizer": optimizer, "order": generator, "found": found}
        for _ in ctx.resumable(f"mask-{label}", c.epochs, parts, f"mask of class {label}"):
            for batch in torch.randperm(len(pixels), generator=generator).to(device).split(c.batch):
                mixed = (1 - mask) * pixels[batch] + mask * pattern
                loss = F.cross_entropy(case.network((mixed - mean) / std), wanted[batch])
                loss = loss + c.mask_weight * mask.abs().sum()
                mask.grad, pattern.grad = torch.autograd.grad(loss, [mask, pattern])
                optimizer.step()
                with torch.no_grad():
                    mask.clamp_(0, 1)
                    pattern.clamp_(0, 1)
            size = mask.detach().abs().sum().item()
            found["epochs since"] += 1
            if size < found["smallest"]:
                found.update({"smallest": size, "epochs since": 0})
            if found["epochs since"] >= c.patience:
                break
        return found["smallest"]


def small_outliers(norms: Doubles) -> Doubles:
    """Return the anomaly index of each norm, negative for norms above the median (large masks are harmless)."""
    return _signed(norms, np.median(norms) - norms)


# --- STRIP -----------------------------------------------------------------------------------------------


class Strip(_ForwardExample):
    """Adds other images to an input: if the victim stays sure of itself, a trigger decides.

    The threshold comes from the defender's own benign images.
    """

    Config: ClassVar[type] = StripConfig

    def inspect(self, case: Case, ctx: RunContext) -> Verdict:
        """See `Defense.inspect`; rates suspects by their negative mean entropy in bits."""
        generator = torch.Generator().manual_seed(ctx.seed_for("victim", "strip"))
        benign = mean_entropy(case.network, case.clean_images, case.clean_images, self.config.overlays, generator)
        suspects = mean_entropy(case.network, case.suspects, case.clean_images, self.config.overlays, generator)
        threshold = strip_threshold(benign, self.config.false_alarms, self.config.threshold_from)
        return Verdict("inputs", -suspects, suspects < threshold)


@torch.no_grad()
def mean_entropy(
    network: Callable[[Tensor], Tensor], images: Tensor, overlays: Tensor, count: int, generator: torch.Generator
) -> Doubles:
    """Return the entropy (bits) of the softmax on image + overlay, averaged over ``count`` random overlays, (N,)."""
    total = torch.zeros(len(images), dtype=torch.float64)
    for _ in range(count):
        chosen = torch.randint(len(overlays), (len(images),), generator=generator).to(images.device)
        log_probabilities = network(images + overlays[chosen]).double().log_softmax(dim=1).cpu()
        total += -(log_probabilities.exp() * log_probabilities).sum(dim=1)
    return (total / count / np.log(2.0)).numpy()


def strip_threshold(benign: Doubles, false_alarms: float, threshold_from: str) -> float:
    """Return the entropy below which this share of benign inputs lies, by a normal fit or by counting."""
    if threshold_from == "empirical":
        return float(np.quantile(benign, false_alarms))
    return float(norm.ppf(false_alarms, loc=benign.mean(), scale=benign.std()))


# --- spectral signatures ---------------------------------------------------------------------------------


class SpectralSignatures(_ForwardExample):
    """Rates distilled images by how far their logits lie along the direction of largest variance."""

    Config: ClassVar[type] = SpectralSignaturesConfig

    def inspect(self, case: Case, ctx: RunContext) -> Verdict:
        """See `Defense.inspect`; rates images of the distilled set."""
        with torch.no_grad():
            logits = case.network(case.images).double().cpu().numpy()
        scores = spectral_scores(logits)
        count = min(len(scores), round(self.config.multiplier * self.config.expected_share * len(scores)))
        flagged = np.zeros(len(scores), dtype=bool)
        flagged[np.argsort(-scores, kind="stable")[:count]] = True
        return Verdict("images", scores, flagged)


def spectral_scores(representations: Doubles) -> Doubles:
    """Return |projection| of centred representations (N, D) on their top right singular vector, (N,)."""
    centred = representations - representations.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    return np.abs(centred @ directions[0])


# --- SCAn ------------------------------------------------------------------------------------------------


class Scan(_ForwardExample):
    """Asks of each class of the distilled set whether two groups explain its features better than one."""

    Config: ClassVar[type] = ScanConfig

    def inspect(self, case: Case, ctx: RunContext) -> Verdict:
        """See `Defense.inspect`; rates classes by their signed anomaly index."""
        rng = np.random.default_rng(ctx.seed_for("victim", "scan"))
        with torch.no_grad():
            clean = case.network.features_of(case.clean_images).double().cpu().numpy()
            features = case.network.features_of(case.images).double().cpu().numpy()
        labels = case.labels.cpu().numpy()
        within = within_class_covariance(clean, case.clean_labels.cpu().numpy(), self.config.rounds)
        statistics = np.array(
            [
                two_group_statistic(features[labels == c], within, self.config.rounds, rng)
                for c in range(case.num_classes)
            ]
        )
        statistics = statistics / max(float(statistics.max()), np.finfo(float).tiny)
        ratings = _signed(statistics, statistics - np.median(statistics))
        return Verdict("classes", ratings, ratings > self.config.threshold)


def within_class_covariance(features: Doubles, labels: NDArray[np.int64], rounds: int) -> Doubles:
    """Return the within-class covariance (D, D) of features = mean + class + individual, by expectation maximisation.

    Class and individual parts are normal with covariances S_u and S_e. Given both, the expected class part of n
    features with sum s (less the mean) is S_u (n S_u + S_e)^-1 s; the covariances of what this gives are the
    next S_u and S_e.
    """
    centred = features - features.mean(axis=0)
    members = [centred[labels == c] for c in np.unique(labels)]
    means = np.repeat([m.mean(axis=0) for m in members], [len(m) for m in members], axis=0)
    between, within = _covariance(means), _covariance(np.concatenate(members) - means)
    for _ in range(rounds):
        inner = [between @ np.linalg.solve(len(m) * between + within, m.sum(axis=0)) for m in members]
        parts = np.repeat(inner, [len(m) for m in members], axis=0)
        before, within = within, _covariance(np.concatenate(members) - parts)
        between = _covariance(parts)
        if np.abs(within - before).max() < _CONVERGED * np.abs(before).max():
            break
    return within


def two_group_statistic(features: Doubles, within: Doubles, rounds: int, rng: np.random.Generator) -> float:
    """Return -2 log of the likelihood ratio of one group to two groups with covariance ``within``.

    The groups are found from a random start by turns: means, then each feature to the nearer mean in the metric
    of the covariance.
    """
    whitened = np.linalg.solve(np.linalg.cholesky(within), (features - features.mean(axis=0)).T).T
    second = rng.permutation(len(whitened)) < len(whitened) // 2
    for _ in range(rounds):
        if second.all() or not second.any():
            return 0.0
        means = whitened[~second].mean(axis=0), whitened[second].mean(axis=0)
        distances = [np.square(whitened - mean).sum(axis=1) for mean in means]
        nearer = distances[1] < distances[0]
        if (nearer == second).all():
            break
        second = nearer
    if second.all() or not second.any():
        return 0.0
    residual = sum(np.square(g - g.mean(axis=0)).sum() for g in (whitened[second], whitened[~second]))
    return float(np.square(whitened).sum() - residual)


def _covariance(values: Doubles) -> Doubles:
    """Return the covariance (D, D) about 0, with a little added to the diagonal: silent features have none."""
    covariance = values.T @ values / len(values)
    return covariance + (_RIDGE * np.trace(covariance) / len(covariance) + np.finfo(float).tiny) * np.eye(
        len(covariance)
    )


def _signed(values: Doubles, direction: Doubles) -> Doubles:
    return np.sign(direction) * np.minimum(anomaly_indices(values), _LARGEST_INDEX)
