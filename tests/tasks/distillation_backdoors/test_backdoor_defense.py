"""The defense task: what defenders see, how verdicts are judged; the four defenses against known numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch
import torch.nn.functional as F

from benchsuite.core.config import build_config
from benchsuite.core.errors import ConfigError, InvalidPrediction
from benchsuite.core.registry import get_registry
from benchsuite.datasets.small_images.reader import load_digits
from benchsuite.harness.context import HarnessContext
from benchsuite.tasks.distillation_backdoors import victims
from benchsuite.tasks.distillation_backdoors.backdoor_defense import BackdoorDefense
from benchsuite.tasks.distillation_backdoors.defense_contract import BackdoorDefenseProtocol, Case, Defense, Verdict
from benchsuite.tasks.distillation_backdoors.defense_judge import check_verdict
from benchsuite.tasks.distillation_backdoors.networks import seeded_network
from benchsuite_doorping import defenses
from benchsuite_doorping.config import NeuralCleanseConfig, ScanConfig, SpectralSignaturesConfig, StripConfig

ANY_METHOD = frozenset(get_registry().methods)


@pytest.fixture(scope="module")
def digits():
    return load_digits(None, 0)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("defense")

    def make(run=0, victim=0, max_steps=2):
        return HarnessContext(
            seeds={"run": run, "victim": victim}, seed_axes=("run", "victim"), workdir=folder,
            artifact_folder=folder / "artifacts", cache_root=folder / "cache", shared_digest="here",
            uses=ANY_METHOD, max_steps=max_steps,
        )  # fmt: skip

    return make


def protocol(**changes):
    settings = {**BackdoorDefense.presets["embedded"].settings, **changes}
    return build_config(BackdoorDefenseProtocol, settings, "task")


@dataclass(frozen=True)
class Settings:
    level: str = "inputs"


class Oracle(Defense):
    """Flags what the patch gives away, or the classes and images of the target class."""

    Config = Settings

    def inspect(self, case, ctx):
        type(self).case = case
        if self.config.level == "inputs":
            patch = case.suspects[:, 0, 13:15, 13:15].flatten(1)
            flagged = (patch == patch[:, :1]).all(dim=1) & (patch[:, 0] > 2)
            return Verdict("inputs", flagged.double().numpy(), flagged.numpy())
        if self.config.level == "every input":
            return Verdict("inputs", np.zeros(len(case.suspects)), np.ones(len(case.suspects), dtype=bool))
        if self.config.level == "images":
            flagged = np.zeros(len(case.labels), dtype=bool)
            flagged[:3] = True
            return Verdict("images", flagged.astype(float), flagged)
        if self.config.level == "every image":
            flagged = (case.labels == 0).numpy()
            return Verdict("images", flagged.astype(float), flagged)
        flagged = np.arange(10) == 0
        return Verdict("classes", flagged.astype(float), flagged)


def evaluate(digits, context, level, **changes):
    data = {"train": digits, "test": digits}
    return BackdoorDefense().evaluate(Oracle(Settings(level)), data, protocol(**changes), context())


class TestTask:
    def test_refusing_every_stamped_input_leaves_no_attack(self, digits, context):
        outcome = evaluate(digits, context, "inputs", attack="naiveattack")
        assert (outcome.scores["auroc"], outcome.scores["flagged_touched"]) == (1.0, 1.0)
        assert outcome.scores["flagged_untouched"] == 0.0
        assert outcome.scores["asr_after"] == 0.0
        assert outcome.scores["cta_after"] == outcome.scores["cta_before"]
        assert outcome.counts == {"items": 250, "items_touched": 125, "flagged": 125}

    def test_refusing_every_input_leaves_no_accuracy_either(self, digits, context):
        scores = evaluate(digits, context, "every input", attack="naiveattack").scores
        assert scores["cta_before"] > 0
        assert (scores["cta_after"], scores["asr_after"]) == (0.0, 0.0)
        assert (scores["auroc"], scores["flagged_untouched"]) == (0.5, 1.0)

    def test_the_target_class_is_the_one_that_is_touched(self, digits, context):
        outcome = evaluate(digits, context, "every image", attack="dc", target_class=4)
        assert (outcome.scores["auroc"], outcome.scores["flagged_touched"]) == (pytest.approx(4 / 9), 0.0)
        assert evaluate(digits, context, "classes", attack="dc", target_class=4).scores["flagged_touched"] == 0.0

    def test_the_defender_holds_images_of_its_own(self, digits, context):
        evaluate(digits, context, "inputs", attack="naiveattack")
        case = Oracle.case
        own = {bytes(image.numpy()) for image in case.clean_images}
        assert len(case.clean_images) == 250
        assert not own & {bytes(image.numpy()) for image in case.suspects}
        assert not hasattr(case, "trigger")

    def test_flagged_images_are_left_out_of_a_new_training(self, digits, context):
        outcome = evaluate(digits, context, "images", attack="dc")
        assert outcome.counts == {"items": 100, "items_touched": 10, "flagged": 3}
        assert outcome.scores["flagged_touched"] == pytest.approx(0.3)
        assert outcome.scores["cta_after"] is not None

    def test_a_new_training_is_without_the_flagged_images(self, digits, context, monkeypatch):
        trained = []
        plain = victims.trained_victim
        monkeypatch.setattr(victims, "trained_victim", lambda made, *rest: trained.append(made) or plain(made, *rest))
        evaluate(digits, context, "images", attack="dd")
        before, after = trained
        assert np.array_equal(after.images, before.images[3:])
        assert after.labels.tolist() == before.labels[3:].tolist()
        assert len(after.schedule.batches) == len(after.labels)

    def test_nothing_is_left_of_a_class(self, digits, context):
        outcome = evaluate(digits, context, "every image", attack="dc")
        assert outcome.scores["cta_after"] is None
        assert "nothing is left" in outcome.undefined["asr_after"]

    def test_ratings_of_classes_change_nothing(self, digits, context):
        outcome = evaluate(digits, context, "classes", attack="dc")
        assert (outcome.scores["auroc"], outcome.scores["asr_after"]) == (1.0, None)
        assert "rates classes" in outcome.undefined["cta_after"]

    def test_other_answers_leave_the_defenders_labels(self, digits, context):
        evaluate(digits, context, "classes", attack="dc")
        before = Oracle.case
        data = BackdoorDefense().with_other_answers({"train": digits, "test": digits})
        BackdoorDefense().evaluate(Oracle(Settings("classes")), data, protocol(attack="dc"), context())
        assert torch.equal(before.clean_labels, Oracle.case.clean_labels)
        assert torch.equal(before.suspects, Oracle.case.suspects)
        assert (data["test"].test_labels != digits.test_labels).sum() == 250

    def test_an_attack_that_is_none(self, digits, context):
        with pytest.raises(ConfigError, match="attack=strip does not distil"):
            evaluate(digits, context, "classes", attack="strip")

    @pytest.mark.parametrize(
        ("verdict", "message"),
        [
            (Verdict("pixels", np.zeros(3), np.zeros(3, bool)), "not 'pixels'"),
            (Verdict("inputs", np.zeros(3), np.zeros(4, bool)), "needs scores and flags of shape"),
            (Verdict("inputs", np.full(4, np.nan), np.zeros(4, bool)), "finite scores"),
            (Verdict("inputs", np.zeros(4), np.zeros(4)), "boolean flags"),
        ],
    )
    def test_broken_verdicts(self, verdict, message):
        with pytest.raises(InvalidPrediction, match=message):
            check_verdict(verdict, 4, 100, 10)


class TestNeuralCleanse:
    def test_published_norms(self):
        norms = np.array([30, 28, 33, 31, 29, 35, 27, 32, 4, 30.5])
        ratings = defenses.small_outliers(norms)
        assert ratings[8] == pytest.approx(8.8527, abs=1e-4)
        assert np.flatnonzero(ratings > NeuralCleanseConfig().threshold).tolist() == [8]
        norms[8] = 26
        ratings = defenses.small_outliers(norms)
        assert ratings[8] == pytest.approx(1.4333, abs=1e-4)
        assert not (ratings > 2).any()

    def test_a_large_norm_is_no_alarm(self):
        ratings = defenses.small_outliers(np.array([30.0, 31, 29, 30.5, 29.5, 300]))
        assert ratings[5] < -2

    def test_finds_the_class_that_one_pixel_decides(self, digits, tmp_path):
        class OnePixel(torch.nn.Module):
            def forward(self, x):
                pixel = x[:, 0, 13, 13] * 0.3185 + 0.3052  # back to [0, 1]
                background = x[:, :, :8, :8].mean(dim=(1, 2, 3))
                logits = torch.stack([5 * torch.sin(3.0 * k * background) for k in range(10)], dim=1)
                return logits + 30 * pixel[:, None] * (torch.arange(10) == 4)

        clean = torch.from_numpy(digits.test_images[:64]).float() / 255
        case = Case(
            OnePixel(), clean, torch.zeros(64), (clean - 0.3052) / 0.3185, torch.zeros(64), clean,
            digits.mean, digits.std, 10,
        )  # fmt: skip
        ctx = HarnessContext(
            seeds={"run": 0, "victim": 0}, seed_axes=("run", "victim"), workdir=tmp_path, artifact_folder=tmp_path,
            cache_root=tmp_path, shared_digest="here", uses=ANY_METHOD,
        )  # fmt: skip
        verdict = defenses.NeuralCleanse(NeuralCleanseConfig(epochs=60, lr=0.05, patience=60)).inspect(case, ctx)
        assert verdict.level == "classes"
        assert verdict.scores.argmax() == 4

    @pytest.mark.parametrize(("mask_weight", "epochs", "lr"), [(0.0, 6, 0.2), (0.05, 4, 0.05)])
    def test_the_mask_against_a_plain_loop(self, digits, context, mask_weight, epochs, lr):
        """Adam on mask and pattern of pixels, clipped to what a pixel can be; what the last epoch ends with."""
        network = seeded_network("convnet-small", 1, 10, 16, 0)
        mean, std = digits.mean[0], digits.std[0]
        clean = (torch.from_numpy(digits.test_images[:24]).float() / 255 - mean) / std
        labels = torch.zeros(24, dtype=torch.int64)
        case = Case(network, clean, labels, clean, labels, clean, digits.mean, digits.std, 10)
        config = NeuralCleanseConfig(epochs=epochs, batch=8, lr=lr, mask_weight=mask_weight)
        found = defenses.NeuralCleanse(config)._final_mask(
            case, 4, torch.Generator().manual_seed(3), context(max_steps=None)
        )
        generator = torch.Generator().manual_seed(3)
        mask, pattern = torch.rand(16, 16, generator=generator), torch.rand(1, 16, 16, generator=generator)
        moments = [[torch.zeros_like(values), torch.zeros_like(values)] for values in (mask, pattern)]
        sizes, step = [], 0
        for _ in range(epochs):
            for batch in torch.randperm(24, generator=generator).split(8):
                step += 1
                mask.requires_grad_(True), pattern.requires_grad_(True)
                seen = (1 - mask) * (clean[batch] * std + mean) + mask * pattern
                loss = F.cross_entropy(network((seen - mean) / std), torch.full((8,), 4)) + mask_weight * mask.sum()
                moved = []
                for values, gradient, kept in zip(
                    (mask, pattern), torch.autograd.grad(loss, [mask, pattern]), moments, strict=True
                ):
                    kept[0] = 0.9 * kept[0] + 0.1 * gradient
                    kept[1] = 0.999 * kept[1] + 0.001 * gradient**2
                    down = (kept[1] / (1 - 0.999**step)).sqrt() + 1e-8
                    moved.append((values.detach() - lr * kept[0] / (1 - 0.9**step) / down).clamp(0, 1))
                mask, pattern = moved
            sizes.append(mask.sum().item())
        assert found == pytest.approx(sizes[-1], rel=1e-3)
        if not mask_weight:
            assert min(sizes) < sizes[-1] - 0.1  # the last is not the smallest

    def test_a_mask_that_stays_as_it_is_is_given_up(self, digits, context, monkeypatch):
        ctx, taken = context(max_steps=None), []
        plain = ctx.resumable
        monkeypatch.setattr(ctx, "resumable", lambda *a: (taken.append(step) or step for step in plain(*a)))
        images = torch.zeros(4, 1, 16, 16)
        labels = torch.zeros(4, dtype=torch.int64)
        network = seeded_network("convnet-small", 1, 10, 16, 0)
        case = Case(network, images, labels, images, labels, images, digits.mean, digits.std, 10)
        config = NeuralCleanseConfig(epochs=50, patience=3, lr=1e-9, mask_weight=0.0)
        defenses.NeuralCleanse(config)._final_mask(case, 0, torch.Generator(), ctx)
        assert taken == [0, 1, 2, 3]


class TestStrip:
    def test_threshold_comes_from_the_benign_fit(self):
        benign = np.random.default_rng(0).normal(1.0, 0.2, 100_000)
        assert defenses.strip_threshold(benign, 0.01, "normal") == pytest.approx(1.0 - 2.3263 * 0.2, abs=0.01)
        assert defenses.strip_threshold(benign, 0.01, "empirical") == pytest.approx(np.quantile(benign, 0.01))

    def test_a_normal_fit_of_skewed_entropies_can_be_negative(self):
        assert defenses.strip_threshold(np.array([0.0] * 8 + [1.0, 2.0]), 0.01, "normal") < 0

    def test_entropies_in_bits(self):
        images = torch.zeros(4, 1, 2, 2)
        uniform = defenses.mean_entropy(lambda x: torch.zeros(len(x), 8), images, images, 3, torch.Generator())
        assert uniform.tolist() == pytest.approx([3.0] * 4)
        sure = defenses.mean_entropy(
            lambda x: torch.tensor([[1000.0, 0, 0]]).expand(len(x), 3), images, images, 3, torch.Generator()
        )
        assert sure.tolist() == pytest.approx([0.0] * 4)

    @pytest.mark.parametrize("threshold_from", ["normal", "empirical"])
    def test_what_is_flagged_lies_below_the_benign_threshold(self, context, threshold_from):
        """Entropies that the pixels prescribe: the share of benign images under the threshold is the one asked for."""

        class Prescribed(torch.nn.Module):
            def forward(self, x):
                return torch.stack([x[:, 0, 0, 0], torch.zeros(len(x))], dim=1)

        generator = torch.Generator().manual_seed(0)
        clean = torch.zeros(400, 1, 2, 2)
        clean[:, 0, 0, 0] = torch.randn(400, generator=generator) / 2 + 2
        suspects = torch.zeros(300, 1, 2, 2)
        suspects[:, 0, 0, 0] = torch.linspace(0, 6, 300)
        none = torch.zeros(400, dtype=torch.int64)
        case = Case(Prescribed(), clean, none, clean, none, suspects, (0.0,), (1.0,), 2)
        flags = {}
        for share in (0.01, 0.2):
            strip = defenses.Strip(StripConfig(overlays=8, false_alarms=share, threshold_from=threshold_from))
            verdict = strip.inspect(case, context())
            again = torch.Generator().manual_seed(context().seed_for("victim", "strip"))
            benign = defenses.mean_entropy(case.network, clean, clean, 8, again)
            limit = np.quantile(benign, share)
            if threshold_from == "normal":
                limit = benign.mean() + benign.std() * {0.01: -2.32635, 0.2: -0.84162}[share]
            assert (verdict.flagged == (-verdict.scores < limit)).mean() > 0.99
            flags[share] = int(verdict.flagged.sum())
        assert 0 < flags[0.01] < flags[0.2] < 300

    def test_overlays_are_added_pixel_by_pixel(self):
        seen = []

        def network(x):
            seen.append(x)
            return torch.zeros(len(x), 2)

        defenses.mean_entropy(
            network, torch.full((2, 1, 1, 1), 5.0), torch.full((3, 1, 1, 1), 0.5), 4, torch.Generator()
        )
        assert len(seen) == 4
        assert all((x == 5.5).all() for x in seen)

    def test_a_trigger_that_decides_is_rated_higher(self, context):
        class Triggered(torch.nn.Module):
            def forward(self, x):
                stamped = (x[:, 0, -1, -1] > 5).float()
                return torch.stack([x.mean(dim=(1, 2, 3)), 50 * stamped], dim=1)

        suspects = torch.randn(40, 1, 4, 4).clamp(-1, 1)
        suspects[20:, :, -1, -1] = 10.0
        case = Case(
            Triggered(), suspects, torch.zeros(40), torch.randn(30, 1, 4, 4).clamp(-1, 1), torch.zeros(30), suspects,
            (0.0,), (1.0,), 2,
        )  # fmt: skip
        verdict = defenses.Strip(StripConfig()).inspect(case, context())
        assert verdict.scores[20:].min() > verdict.scores[:20].max()
        assert verdict.flagged[20:].all()


class TestSpectral:
    def test_scores_against_the_covariance_matrix(self):
        values = np.random.default_rng(0).normal(size=(50, 6)) @ np.diag([4, 1, 1, 1, 1, 1.0]) + 3
        centred = values - values.mean(axis=0)
        _, vectors = np.linalg.eigh(centred.T @ centred)
        assert np.allclose(defenses.spectral_scores(values), np.abs(centred @ vectors[:, -1]))

    def test_flags_one_and_a_half_times_the_expected_share(self, context):
        images = torch.randn(100, 1, 1, 10)
        case = Case(
            torch.nn.Flatten(), images, torch.arange(10).repeat(10), images, torch.zeros(100), images,
            (0.0,), (1.0,), 10,
        )  # fmt: skip
        verdict = defenses.SpectralSignatures(SpectralSignaturesConfig()).inspect(case, context())
        assert verdict.flagged.sum() == 15
        assert verdict.scores[verdict.flagged].min() >= verdict.scores[~verdict.flagged].max()


class Features(torch.nn.Module):
    """A victim whose features are its input."""

    def features_of(self, x):
        return x


def scan_case(features, labels, clean, clean_labels):
    tensors = [torch.from_numpy(values) for values in (features, labels, clean, clean_labels, clean)]
    return Case(Features(), *tensors, (0.0,), (1.0,), int(labels.max()) + 1)


def scan_by_hand(features, between, within, first):
    """The statistic of the authors' defense code, feature by feature, for two given groups of a class."""
    inverse = np.linalg.inv(within)
    alone = np.zeros(features.shape[1])
    for x in features:
        alone += within @ np.linalg.inv(len(features) * between + within) @ x
    total = 0.0
    for x, of_first in zip(features, first, strict=True):
        group = features[first == of_first].mean(axis=0)
        total += (x - alone) @ inverse @ (x - alone) - (x - group) @ inverse @ (x - group)
    return total / len(features)


class TestScan:
    WITHIN = np.array([[2.0, 0.6, 0], [0.6, 1.0, 0], [0, 0, 0.5]])
    BETWEEN = np.array([[4.0, 0, 1.0], [0, 2.0, 0], [1.0, 0, 3.0]])

    def test_recovers_the_covariances(self):
        rng = np.random.default_rng(0)
        labels = np.arange(400).repeat(20)
        features = rng.multivariate_normal(np.zeros(3), self.BETWEEN, 400)[labels]
        features += rng.multivariate_normal(np.zeros(3), self.WITHIN, len(labels)) + 5
        between, within = defenses.class_covariances(features, labels, 50, 1e-4)
        assert np.allclose(within, self.WITHIN, atol=0.12)
        assert np.allclose(between, self.BETWEEN, atol=0.5)

    @pytest.mark.parametrize(("tolerance", "rounds"), [(0.0, 1), (1e9, 50)])
    def test_the_first_round_by_hand(self, tolerance, rounds):
        rng = np.random.default_rng(1)
        labels = np.array([0] * 5 + [1] * 9 + [2] * 3)
        features = rng.normal(size=(17, 3)) + rng.normal(size=(3, 3))[labels] * 2
        x = features - features.mean(axis=0)
        parts = np.stack([x[labels == k].mean(axis=0) for k in labels])
        between, within = np.cov(parts.T), np.cov((x - parts).T)
        inner = np.zeros((3, 3))
        for k in range(3):
            total = np.linalg.inv((labels == k).sum() * between + within)
            for row in x[labels == k]:
                inner[k] += within @ total @ between @ np.linalg.inv(within) @ row
        found = defenses.class_covariances(features, labels, rounds, tolerance)
        assert np.allclose(found[0], np.cov(inner[labels].T))
        assert np.allclose(found[1], np.cov((x - inner[labels]).T))

    def test_the_statistic_by_hand(self):
        """One group has the mean S_e (N S_u + S_e)^-1 sum x, not the mean of the class; all is divided by N."""
        rng = np.random.default_rng(0)
        first = np.arange(12) < 5
        features = rng.normal(size=(12, 3)) + 3 + np.where(first, 30.0, 0.0)[:, None]
        found = defenses.two_group_statistic(features, self.BETWEEN, self.WITHIN, 50, np.random.default_rng(1))
        assert found == pytest.approx(scan_by_hand(features, self.BETWEEN, self.WITHIN, first))
        twice = np.concatenate([features, features])
        both = defenses.two_group_statistic(twice, self.BETWEEN / 2, self.WITHIN, 50, np.random.default_rng(1))
        by_hand = scan_by_hand(twice, self.BETWEEN / 2, self.WITHIN, np.tile(first, 2))
        assert both == pytest.approx(by_hand)

    def test_groups_are_told_apart_in_the_metric_of_the_covariance(self):
        """Groups far apart along a quiet direction: without whitening, loud noise along another one hides them."""
        rng = np.random.default_rng(3)
        noise = np.array([200.0, 0.1])
        features = rng.normal(size=(60, 2)) * noise
        features[30:, 1] += 4.0
        within, between = np.diag(noise**2), np.diag([1.0, 1.0])
        found = defenses.two_group_statistic(features, between, within, 60, np.random.default_rng(1))
        assert found == pytest.approx(scan_by_hand(features, between, within, np.arange(60) < 30))

    def test_a_single_feature_is_its_own_group(self):
        x = np.array([[1.0, 2.0, 3.0]])
        found = defenses.two_group_statistic(x, self.BETWEEN, self.WITHIN, 5, np.random.default_rng(0))
        assert found == pytest.approx(scan_by_hand(x, self.BETWEEN, self.WITHIN, np.array([True])))

    def test_a_silent_feature_counts_nothing(self):
        """A ReLU that no clean image excites has no variance: what distilled images do there is left out."""
        rng = np.random.default_rng(0)
        labels = np.arange(4).repeat(20)
        clean = rng.normal(size=(80, 3)) + rng.normal(size=(4, 3))[labels] * 2
        between, within = defenses.class_covariances(clean, labels, 50, 1e-2)
        silent = defenses.class_covariances(np.c_[clean, np.zeros(80)], labels, 50, 1e-2)
        features = rng.normal(size=(10, 3))
        loud = np.c_[features, 100 * rng.random(10)]
        expected = defenses.two_group_statistic(features, between, within, 50, np.random.default_rng(2))
        found = defenses.two_group_statistic(loud, *silent, 50, np.random.default_rng(2))
        assert found == pytest.approx(expected)

    def example(self):
        rng = np.random.default_rng(0)
        labels, clean_labels = np.arange(10).repeat(10), np.arange(10).repeat(30)
        centres = rng.normal(size=(10, 4))
        clean = centres[clean_labels] + rng.normal(size=(300, 4))
        return centres[labels] + rng.normal(size=(100, 4)), labels, clean, clean_labels

    def test_flags_a_class_of_two_groups(self, context):
        features, labels, clean, clean_labels = self.example()
        features[:5] += 20.0
        features[5:10] -= 20.0
        verdict = defenses.Scan(ScanConfig()).inspect(scan_case(features, labels, clean, clean_labels), context())
        assert np.flatnonzero(verdict.flagged).tolist() == [0]

    def test_classes_are_centred_on_the_mean_of_the_whole_set(self, context):
        """Moved as a whole, one class stands out: centred on its own mean it would be as before."""
        features, labels, clean, clean_labels = self.example()
        features[40:50] += 50.0
        verdict = defenses.Scan(ScanConfig()).inspect(scan_case(features, labels, clean, clean_labels), context())
        assert verdict.scores.argmax() == 4
        assert verdict.flagged[4]
        moved = defenses.Scan(ScanConfig()).inspect(scan_case(features + 7, labels, clean, clean_labels), context())
        assert moved.scores == pytest.approx(verdict.scores)

    def test_the_index_has_no_sign(self, context, monkeypatch):
        """A class that is far more of one piece than the others stands out as well."""
        statistics = iter([10.0, 11.0, 9.0, 10.5, 9.5, 10.2, 0.5, 9.8, 10.1, 9.9])
        monkeypatch.setattr(defenses, "two_group_statistic", lambda *a: next(statistics))
        verdict = defenses.Scan(ScanConfig()).inspect(scan_case(*self.example()), context())
        assert np.flatnonzero(verdict.flagged).tolist() == [6]
        assert (verdict.scores >= 0).all()
