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


class _ForwardExample(Defense):
    """What the fake-CUDA check traces: a victim."""

    config: Any

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield a full-size victim."""
        yield build_network("convnet", 3, 10, 32), (torch.randn(2, 3, 32, 32),)


# --- Neural Cleanse --------------------------------------------------------------------------------------


class NeuralCleanse(_ForwardExample):
    """Looks for a small mask that turns every image into a class; a class whose mask ends tiny is suspect.

    Pixels are normalised before they reach the victim (the authors' defense code leaves this out).
    """

    Config: ClassVar[type] = NeuralCleanseConfig

    def inspect(self, case: Case, ctx: RunContext) -> Verdict:
        """See `Defense.inspect`; rates classes by their signed anomaly index."""
        generator = torch.Generator().manual_seed(ctx.seed_for("victim", "neural-cleanse"))
        norms = [self._final_mask(case, label, generator, ctx) for label in range(case.num_classes)]
        ratings = small_outliers(np.array(norms))
        return Verdict("classes", ratings, ratings > self.config.threshold)

    def _final_mask(self, case: Case, label: int, generator: torch.Generator, ctx: RunContext) -> float:
        """Return the L1 norm (pixels) of the mask that the last epoch ended with.

        As in the authors' defense code the smallest norm so far only decides when to give up: it is the mask at
        hand then that is rated, be it larger.
        """
        c = self.config
        device = case.clean_images.device
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (case.mean, case.std))
        pixels = case.clean_images * std + mean
        mask = torch.rand(pixels.shape[2:], generator=generator).to(device).requires_grad_(True)
        pattern = torch.rand(pixels.shape[1:], generator=generator).to(device).requires_grad_(True)
        optimizer = torch.optim.Adam([mask, pattern], lr=c.lr)
        wanted = torch.full((len(pixels),), label, device=device)
        found = {"norm": mask.detach().sum().item(), "smallest": float("inf"), "epochs since": 0}
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
            found["norm"] = mask.detach().abs().sum().item()
            found["epochs since"] += 1
            if found["norm"] < found["smallest"]:
                found.update({"smallest": found["norm"], "epochs since": 0})
            if found["epochs since"] >= c.patience:
                break
        return found["norm"]


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
    """Asks of each class of the distilled set whether two groups explain its features better than one.

    As the authors' defense code computes it: features are centred on the mean of the whole distilled set, and the
    index has no sign, so that a class that is far more of one piece than the others stands out too.
    """

    Config: ClassVar[type] = ScanConfig

    def inspect(self, case: Case, ctx: RunContext) -> Verdict:
        """See `Defense.inspect`; rates classes by their anomaly index."""
        c = self.config
        rng = np.random.default_rng(ctx.seed_for("victim", "scan"))
        with torch.no_grad():
            clean = case.network.features_of(case.clean_images).double().cpu().numpy()
            features = case.network.features_of(case.images).double().cpu().numpy()
        labels = case.labels.cpu().numpy()
        between, within = class_covariances(clean, case.clean_labels.cpu().numpy(), c.rounds, c.tolerance)
        centred = features - features.mean(axis=0)
        statistics = np.array(
            [two_group_statistic(centred[labels == k], between, within, c.rounds, rng) for k in range(case.num_classes)]
        )
        statistics = statistics / max(float(statistics.max()), np.finfo(float).tiny)
        ratings = np.minimum(anomaly_indices(statistics), _LARGEST_INDEX)
        return Verdict("classes", ratings, ratings > c.threshold)


def class_covariances(
    features: Doubles, labels: NDArray[np.int64], rounds: int, tolerance: float
) -> tuple[Doubles, Doubles]:
    """Return S_u and S_e of features = mean + class + individual, by expectation maximisation.

    Class and individual parts are normal with covariances S_u and S_e. Given both, the expected class part of n
    features with sum s (less the mean) is S_u (n S_u + S_e)^-1 s; the covariances of what this gives are the
    next S_u and S_e.

    Parameters
    ----------
    features
        (N, D), of clean images.
    labels
        (N,) their classes.
    rounds
        Rounds at most.
    tolerance
        The rounds end when the changes of both covariances have Frobenius norms that sum up to this or less.

    Returns
    -------
    tuple of ndarray
        S_u and S_e, both (D, D).
    """
    centred = features - features.mean(axis=0)
    members = [centred[labels == c] for c in np.unique(labels)]
    individuals, counts = np.concatenate(members), [len(m) for m in members]
    parts = np.repeat([m.mean(axis=0) for m in members], counts, axis=0)
    between, within = _covariance(parts), _covariance(individuals - parts)
    for _ in range(rounds):
        inner = [between @ _inverse(len(m) * between + within) @ m.sum(axis=0) for m in members]
        parts = np.repeat(inner, counts, axis=0)
        before = between, within
        between, within = _covariance(parts), _covariance(individuals - parts)
        if np.linalg.norm(between - before[0]) + np.linalg.norm(within - before[1]) <= tolerance:
            break
    return between, within


def two_group_statistic(
    features: Doubles, between: Doubles, within: Doubles, rounds: int, rng: np.random.Generator
) -> float:
    """Return what two groups explain more than one, a feature: -2 log of the likelihood ratio over N.

    With F the (pseudo-)inverse of S_e it is ``1/N sum_i (x_i - mu)' F (x_i - mu) - (x_i - u_i)' F (x_i - u_i)``: u_i
    the mean of x_i's group, and ``mu = S_e (N S_u + S_e)^-1 sum_i x_i`` that of a single group, as the authors'
    defense code has it (the posterior mean would begin with S_u). Where classes lie far apart mu is close to the mean
    of all, so a class far from the others scores too. The groups are found from a random start by turns: means, then
    each feature to the nearer mean in the metric of F.

    Parameters
    ----------
    features
        (N, D), of one class, less the mean of all classes.
    between, within
        S_u and S_e, (D, D).
    rounds
        Turns at most.
    rng
        Draws the first groups.
    """
    count, precision = len(features), _inverse(within)

    def distances(mean: Doubles) -> Doubles:
        offsets = features - mean
        squared: Doubles = np.einsum("nd,de,ne->n", offsets, precision, offsets)
        return squared

    first = rng.random(count) >= 0.5
    if first.all() or not first.any():  # neither group starts empty
        first[0] = not first[0]
    means = features.mean(axis=0), features.mean(axis=0)
    for _ in range(rounds):
        if first.all() or not first.any():
            break
        means = features[first].mean(axis=0), features[~first].mean(axis=0)
        nearer = distances(means[0]) < distances(means[1])
        if (nearer == first).all():
            break
        first = nearer
    alone = within @ _inverse(count * between + within) @ features.sum(axis=0)
    split = np.where(first, distances(means[0]), distances(means[1]))
    return float((distances(alone) - split).mean())


def _covariance(values: Doubles) -> Doubles:
    """Return the sample covariance (D, D) of the rows of (N, D)."""
    covariance: Doubles = np.atleast_2d(np.cov(values, rowvar=False))
    return covariance


def _inverse(covariance: Doubles) -> Doubles:
    """Return the pseudo-inverse (D, D): directions without variance, as of silent features, count nothing."""
    inverse = np.linalg.pinv(covariance, rcond=len(covariance) * float(np.finfo(float).eps), hermitian=True)
    return np.asarray(inverse, dtype=np.float64)


def _signed(values: Doubles, direction: Doubles) -> Doubles:
    return np.sign(direction) * np.minimum(anomaly_indices(values), _LARGEST_INDEX)
