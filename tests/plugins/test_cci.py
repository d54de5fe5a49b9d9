"""CCI: the contrast, the interventions, the network, decoding; what it reaches on the real samples (slow)."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchsuite.core.errors import ConfigError
from benchsuite.datasets.ecg import generated as ecg_generator
from benchsuite.datasets.pcg import generated as pcg_generator
from benchsuite.harness.context import HarnessContext
from benchsuite.tasks.cardiac_signals.heart_sound_contract import AnnotatedPcg
from benchsuite.tasks.cardiac_signals.qrs_contract import AnnotatedEcg
from benchsuite_cci import contrast, ecg, pcg, training
from benchsuite_cci.config import CCIConfig, UNetConfig
from benchsuite_cci.method import CCI, PlainUNet
from benchsuite_cci.network import Projector, UNet1d

RATE = 100


def parameters(module):
    return sum(p.numel() for p in module.parameters())


class TestNetwork:
    @pytest.mark.parametrize(("channels", "classes", "expected"), [(1, 2, 39_674), (4, 4, 39_860)])
    def test_parameters_with_projector(self, channels, classes, expected):
        network = UNet1d(channels, classes)
        assert parameters(Projector(8)) == 1_344
        assert parameters(network) + parameters(Projector(8)) == expected

    def test_output_is_as_long_as_the_input(self):
        logits, features = UNet1d(4, 4).eval()(torch.zeros(2, 4, 384))
        assert logits.shape == (2, 4, 384)
        assert features.shape == (2, 8, 384)


class TestContrast:
    def test_two_orthonormal_anchors_of_different_class(self):
        z = torch.eye(2)
        loss = contrast.contrastive_loss(z, z, torch.tensor([0, 1]), 1.0)
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)

    def test_one_class_gives_exactly_zero(self):
        z = torch.randn(6, 4)
        assert contrast.contrastive_loss(z, torch.randn(6, 4), torch.ones(6, dtype=torch.int64), 0.1).item() == 0.0

    def test_order_and_scale_do_not_matter(self):
        torch.manual_seed(0)
        a, b, labels = torch.randn(8, 4), torch.randn(8, 4), torch.tensor([0, 1] * 4)
        loss = contrast.contrastive_loss(a, b, labels, 0.1)
        order = torch.randperm(8)
        assert contrast.contrastive_loss(a[order], b[order], labels[order], 0.1) == pytest.approx(loss.item(), rel=1e-5)
        assert contrast.contrastive_loss(3 * a, 7 * b, labels, 0.1) == pytest.approx(loss.item(), rel=1e-5)

    def test_gradient_reaches_both_views(self):
        a, b = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
        contrast.contrastive_loss(a, b, torch.tensor([0, 0, 1, 1]), 0.5).backward()
        assert a.grad.abs().sum() > 0
        assert b.grad.abs().sum() > 0

    def test_pairs_are_balanced_and_agree_on_the_label(self):
        rng = np.random.default_rng(0)
        labels = (rng.random((3, 50)) < 0.2).astype(np.int64)
        partner = rng.integers(-1, 50, size=(3, 50))
        pairs = contrast.balanced_pairs(labels, labels, partner, 30, rng)
        drawn = labels[pairs[:, 0], pairs[:, 1]]
        assert (drawn == labels[pairs[:, 0], pairs[:, 2]]).all()
        assert (drawn == 0).sum() == (drawn == 1).sum() > 0
        assert (pairs >= 0).all()

    def test_no_pair_without_two_classes(self):
        zeros = np.zeros((1, 9), dtype=np.int64)
        assert len(contrast.balanced_pairs(zeros, zeros, zeros, 8, np.random.default_rng(0))) == 0


class TestRhythmOfEcg:
    beats = np.array([50, 150, 250])

    def test_new_intervals_move_the_beats(self):
        mapped = ecg.map_rhythm(self.beats, 300, np.array([0.8, 1.2]), 100)
        assert mapped.beats.tolist() == [50, 130, 250]

    def test_units_are_copied_exactly(self):
        x = np.random.default_rng(0).normal(size=300)
        mapped = ecg.map_rhythm(self.beats, 300, np.array([0.8, 1.2]), 100)
        moved = ecg.take(x, mapped.source)
        for old, new in zip(self.beats, mapped.beats, strict=True):
            assert np.array_equal(moved[new - 10 : new + 13], x[old - 10 : old + 13])

    def test_time_never_runs_backwards(self):
        rng = np.random.default_rng(1)
        for _ in range(50):
            beats = np.unique(rng.integers(0, 500, size=8))
            mapped = ecg.map_rhythm(beats, 512, ecg.draw_intervals(len(beats), rng), 100)
            assert (np.diff(mapped.source) >= 0).all()
            assert mapped.source.min() >= -60
            assert mapped.source.max() <= 511

    def test_peaks_stay_at_the_beats(self):
        rng, off, total = np.random.default_rng(2), 0, 0
        for _ in range(30):
            x, beats = noiseless(rng)
            mapped = ecg.map_rhythm(beats, len(x), ecg.draw_intervals(len(beats), rng), RATE)
            moved = ecg.take(x, mapped.source)
            off += wrong_peaks(moved, mapped.beats[1:-1])
            total += len(beats) - 2
        assert off == 0
        assert total > 300


def noiseless(rng):
    """Return 12 s of beats of a random training person at 100 Hz."""
    shape, bpm = [(ecg_generator.upright, (55, 75)), (ecg_generator.inverted, (95, 120))][rng.integers(2)]
    intervals, early = ecg_generator.regular(rng.uniform(*bpm), 60, rng)
    return ecg_generator.render(shape(rng), intervals, early, 12, RATE)


def wrong_peaks(x, beats):
    """Count beats whose peak (distance from the local median) lies more than 20 ms away from R."""
    wrong = 0
    for beat in beats:
        window = x[beat - 6 : beat + 7]
        local = np.median(x[max(beat - 25, 0) : beat + 26])
        wrong += abs(int(np.abs(window - local).argmax()) - 6) > 2
    return wrong


class TestMorphologyOfEcg:
    def test_keeps_the_beats(self):
        rng, off, total = np.random.default_rng(3), 0, 0
        for dilation in (0.75, 1.0, 1.6, 2.6):
            for polarity in (-1.0, 1.0):
                for _ in range(6):
                    (x, beats), (donor, donor_beats) = noiseless(rng), noiseless(rng)
                    shape = ecg.BeatShape(dilation, polarity)
                    other = ecg.intervene_on_morphology(x, beats, donor, donor_beats[1:-1], RATE, shape, rng)
                    off += wrong_peaks(other, beats[1:-1])
                    total += len(beats) - 2
        assert off == 0
        assert total > 500

    def test_outside_the_windows_nothing_changes(self):
        rng = np.random.default_rng(4)
        (x, beats), (donor, donor_beats) = noiseless(rng), noiseless(rng)
        slow = beats[::3]  # wide gaps between the windows
        other = ecg.intervene_on_morphology(x, slow, donor, donor_beats, RATE, ecg.BeatShape.draw(rng), rng)
        outside = np.ones(len(x), dtype=bool)
        for beat in slow:
            outside[max(beat - 25, 0) : beat + 46] = False
        assert outside.any()
        assert np.array_equal(other[outside], x[outside])
        assert not np.array_equal(other, x)

    def test_a_periodic_record_as_its_own_donor_stays_as_it_is(self):
        beat = ecg_generator.upright(np.random.default_rng(5))
        x, beats = ecg_generator.render(beat, np.full(40, 0.8), np.zeros(40, dtype=bool), 20, RATE)
        inner = beats[2:-2]
        same = ecg.intervene_on_morphology(x, inner, x, inner, RATE, ecg.BeatShape(), np.random.default_rng(0))
        assert np.abs(same - x)[inner[1] : inner[-2]].max() < 1e-6


@pytest.fixture(scope="module")
def record():
    """Band energies and states of a generated phonocardiogram."""
    one = pcg_generator.load_generated(None, 0).records[0]
    return pcg.band_energies(one.signal, one.fs), one.states.astype(np.int64)


class TestPcgInterventions:
    def test_energies_have_a_frame_every_20_ms(self, record):
        energies, states = record
        assert energies.shape == (4, len(states)) == (4, 800)

    def test_rhythm_keeps_every_sound_frame(self, record):
        _, states = record
        rng = np.random.default_rng(0)
        for _ in range(20):
            source = pcg.map_rhythm(states, rng)
            moved = states[np.round(source).astype(int)]
            for sound in (0, 2):
                assert (moved == sound).sum() == (states == sound).sum()
                assert len(pcg.runs_of(moved, sound)) == len(pcg.runs_of(states, sound))

    def test_sounds_are_copied_exactly_and_pauses_change(self, record):
        energies, states = record
        source = pcg.map_rhythm(states, np.random.default_rng(1))
        moved, labels = pcg.take(energies, source), states[np.round(source).astype(int)]
        assert np.array_equal(moved[:, labels == 0], energies[:, states == 0])
        assert (labels == 1).sum() != (states == 1).sum()

    def test_morphology_changes_sounds_and_leaves_diastole(self, record):
        energies, states = record
        bank = pcg.SoundBank.of(energies, states)
        other = pcg.intervene_on_morphology(energies, states, bank, np.random.default_rng(2))
        assert np.array_equal(other[:, states == 3], energies[:, states == 3])
        assert not np.array_equal(other[:, states == 0], energies[:, states == 0])
        assert np.isfinite(other).all()


class TestDecoding:
    def test_runs_become_centres(self):
        probability = np.zeros(200)
        probability[20:25] = 0.9
        probability[60:63] = 0.9  # too short
        probability[100:110] = 0.9
        probability[115:120] = 0.9  # within 200 ms of a larger one
        assert ecg.decode(probability, 100) == pytest.approx([22.0, 104.5])  # centres are means of floats

    def test_larger_run_wins_also_when_it_comes_second(self):
        probability = np.zeros(100)
        probability[20:25] = 0.9
        probability[30:40] = 0.9
        assert ecg.decode(probability, 100) == pytest.approx([34.5])

    def test_nothing_found(self):
        assert len(ecg.decode(np.zeros(50), 100)) == 0

    def test_durations_repair_a_broken_path(self):
        truth = np.tile(np.repeat([0, 1, 2, 3], [6, 8, 5, 20]), 6)
        durations = pcg.Durations.of([truth])
        logits = np.full((4, len(truth)), -3.0)
        logits[truth, np.arange(len(truth))] = -0.1
        logits[:, 50] = [-0.1, -3, -3, -3]  # a spurious S1 in the middle of something else
        assert np.array_equal(pcg.decode_with_durations(logits, durations), truth)

    def test_duration_path_is_cyclic_on_noise(self):
        rng = np.random.default_rng(0)
        durations = pcg.Durations(np.array([6.0, 8, 5, 20]), np.array([1.0, 2, 1, 5]))
        path = pcg.decode_with_durations(rng.normal(size=(4, 300)), durations)
        changes = path[np.flatnonzero(np.diff(path)) + 1]
        assert ((np.diff(changes) % 4) == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be"),
        ({"ecg_crop": 500}, "multiple of 8"),
        ({"widths": ()}, "at least one level"),
        ({"temperature": 0.0}, "temperature"),
        ({"contrast_weight": -1.0}, "contrast_weight"),
        ({"morphology": False, "rhythm": False}, "unet1d"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        CCIConfig(**settings)


def test_interventions_cost_nothing_at_inference():
    assert parameters(UNet1d(1, 2, UNetConfig().widths)) == parameters(UNet1d(1, 2, CCIConfig().widths)) == 38_330


STEPS = 8
SMALL = {
    "widths": (4, 8), "steps": STEPS, "ecg_crop": 128, "ecg_batch": 2, "pcg_crop": 128, "pcg_batch": 2
}  # fmt: skip


class Killed(BaseException):
    """Stands for a process that is gone at once."""


def make_context(folder):
    return HarnessContext(
        seeds={"run": 0},
        seed_axes=("run",),
        workdir=folder,
        artifact_folder=folder / "artifacts",
        cache_root=folder / "cache",
        shared_digest="d",
        wanted_artifacts=frozenset({"model"}),
        checkpoint_folder=folder / "checkpoints",
    )


@pytest.fixture(scope="module")
def persons():
    """The first eight training records of both tasks, by the name of the method that takes them."""
    ecgs, pcgs = (g.load_generated(None, 0).records[:8] for g in (ecg_generator, pcg_generator))
    return {
        "fit_qrs": [AnnotatedEcg(r.name, r.lead(), r.fs, r.beats) for r in ecgs],
        "fit_heart_sounds": [AnnotatedPcg(r.name, r.signal, r.fs, r.states) for r in pcgs],
    }


def trained(method, fit, records, folder):
    """Train; returns all weights and buffers of the network."""
    getattr(method, fit)(records, make_context(folder))
    return torch.load(folder / "artifacts" / "model.pt", weights_only=True)


@pytest.mark.parametrize("fit", ["fit_qrs", "fit_heart_sounds"])
@pytest.mark.parametrize(
    ("cls", "config"),
    [(CCI, CCIConfig(**SMALL, anchors=16)), (PlainUNet, UNetConfig(**SMALL, schedule="cosine"))],
    ids=["cci", "unet1d"],
)
def test_a_killed_training_goes_on_bit_for_bit(persons, tmp_path, monkeypatch, fit, cls, config):
    monkeypatch.setenv("BENCHSUITE_CHECKPOINT_STEPS", "2")
    whole = trained(cls(config), fit, persons[fit], tmp_path / "whole")
    loss, done = training._loss, []

    def killing(at):
        def one_step(*arguments):
            done.append(None)
            if len(done) > at:
                raise Killed
            return loss(*arguments)

        return one_step

    for kill_at in (3, 4, 7):
        folder = tmp_path / str(kill_at)
        done.clear()
        monkeypatch.setattr(training, "_loss", killing(kill_at))
        with pytest.raises(Killed):
            trained(cls(config), fit, persons[fit], folder)
        done.clear()
        torch.manual_seed(kill_at)
        monkeypatch.setattr(training, "_loss", killing(STEPS))
        found = trained(cls(config), fit, persons[fit], folder)
        assert len(done) == STEPS - (kill_at - kill_at % 2)
        assert all(torch.equal(value, found[name]) for name, value in whole.items())


def mean_scores(cli, task, data, root, metric, methods):
    """Run three seeds and return the mean of a metric (percent) for each method."""
    chosen = [part for name in methods for part in ("--method", name)]
    done = cli("run", "--task", task, *chosen, "--dataset", data, "--data-root", root, "--seeds", "3", timeout=900)
    assert done.code == 0, done.err
    found: dict[str, list[float]] = {}
    for item in cli("results", "list", "--json").json():
        found.setdefault(item["label"], []).append(100 * item["scores"][metric])
    return {name: sum(values) / len(values) for name, values in found.items()}


@pytest.mark.slow
def test_beats_like_those_of_training_are_found(cli):
    done = cli("run", "--task", "qrs-detection", "--method", "unet1d", "--seeds", "3", timeout=900)
    assert done.code == 0, done.err
    for path in cli.folder.glob("runs/**/result.json"):
        groups = {row["group"]: row["f1_75ms"] for row in json.loads(path.read_text())["tables"]["groups"]}
        assert groups["iid"] >= 0.995


@pytest.mark.slow
@pytest.mark.real_data
def test_frozen_recipe_on_the_cpsc_sample(cli, real_data):
    """A regression bound, not evidence: lambda and tau were looked at on this data."""
    scores = mean_scores(cli, "qrs-detection", "cpsc2019", real_data / "ecg/cpsc2019", "f1_75ms", ["unet1d", "cci"])
    assert scores["cci"] - scores["unet1d"] >= 1.0


@pytest.mark.slow
@pytest.mark.real_data
def test_frozen_recipe_on_the_circor_sample(cli, real_data):
    """A regression bound, not evidence: lambda and tau were looked at on this data."""
    root = real_data / "pcg/circor2022"
    scores = mean_scores(cli, "heart-sound-segmentation", "circor2022", root, "f1_60ms", ["unet1d", "cci"])
    assert scores["cci"] - scores["unet1d"] >= 15.0
