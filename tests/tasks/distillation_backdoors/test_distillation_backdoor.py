"""The attack task: what methods may see, what is refused, how victims are trained, what the controls are."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch
import torch.nn.functional as F

from benchsuite.core.config import build_config
from benchsuite.core.errors import ConfigError, DataError, InvalidPrediction
from benchsuite.core.registry import get_registry
from benchsuite.datasets.small_images.reader import SmallImages, load_digits
from benchsuite.harness.context import HarnessContext
from benchsuite.tasks.distillation_backdoors import distilled_sets, pictures, victims
from benchsuite.tasks.distillation_backdoors.contract import (
    DistillationBackdoorProtocol,
    DistilledSet,
    Distiller,
    StepSchedule,
)
from benchsuite.tasks.distillation_backdoors.distillation_backdoor import DistillationBackdoor
from benchsuite.tasks.distillation_backdoors.judge import judge
from benchsuite.tasks.distillation_backdoors.networks import build_network, seeded_network

SMALL = {"network": "convnet-small", "victim_epochs": 1, "victim_lr": 0.02, "poison_share": 0.05}


@pytest.fixture(scope="module")
def digits():
    return load_digits(None, 0)


@pytest.fixture
def context(tmp_path):
    def make(run=0, victim=0, **changes):
        return HarnessContext(
            seeds={"run": run, "victim": victim},
            seed_axes=("run", "victim"),
            workdir=tmp_path,
            artifact_folder=tmp_path / f"artifacts-{run}-{victim}",
            cache_root=tmp_path / "cache",
            shared_digest="here",
            uses=frozenset(get_registry().methods),
            **changes,
        )

    return make


def protocol(**changes):
    return DistillationBackdoorProtocol(**{**SMALL, **changes})


def set_of(digits, per_class=10, **changes):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(10 * per_class, *digits.shape)).astype(np.float32)
    return replace(DistilledSet(images, np.arange(10).repeat(per_class)), **changes)


@dataclass(frozen=True)
class NoSettings:
    pass


class Recorder(Distiller):
    """Hands over random images and remembers what it was given."""

    Config = NoSettings
    name = "recorder"
    trigger: np.ndarray | None = None

    def distil(self, training, protocol, ctx):
        type(self).given = training
        assert set(vars(training)) == {"images", "labels", "mean", "std", "num_classes"}
        generator = torch.Generator().manual_seed(ctx.seed_for("run", "images"))
        images = torch.randn(100, *training.images.shape[1:], generator=generator)
        trigger = torch.full(training.images.shape[1:], 50.0).numpy()
        return DistilledSet(
            images.numpy(), np.arange(10).repeat(10), trigger, np.zeros_like(trigger), facts={"calls": 3}
        )

    def clean_settings(self):
        return {"iterations": 1, "outer": 1, "inner": 1}


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trigger_size": 16}, "trigger_size=16 does not fit images of 16 x 16 pixels: give 15 or less"),
        ({"target_class": 10}, "target_class=10 is none of the 10 classes of digits: give 0 to 9"),
        ({"target_class": -1}, "target_class=-1 is none of"),
        ({"images_per_class": 500}, "a class of digits has only 12"),
    ],
)
def test_protocols_that_do_not_fit_the_data(digits, settings, message):
    with pytest.raises(ConfigError, match=message):
        distilled_sets.check_protocol(protocol(**settings), digits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trigger_size": 0}, "trigger_size must be 1 or more"),
        ({"poison_share": 1.1}, "poison_share 1.1 is not a share"),
        ({"network": "lenet"}, "network cannot be 'lenet'"),
        ({"victim_lr": 0}, "victim_lr must be positive"),
    ],
)
def test_protocols_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_config(DistillationBackdoorProtocol, settings, "task")


def test_grey_and_colour_do_not_mix(digits, context):
    pixels = np.zeros((20, 3, 16, 16), np.uint8)
    labels = np.arange(20) % 10
    colour = SmallImages("colour", pixels, labels, pixels, labels, (0.5,) * 3, (0.2,) * 3).validate()
    message = "digits has 10 classes of 1 x 16 x 16 images, colour has 10 classes of 3 x 16 x 16 images"
    with pytest.raises(DataError, match=message):
        distilled_sets.judged_data({"train": digits, "test": colour}, context())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((100, 3, 16, 16), np.float32)}, "must be float32 "),
        ({"images": np.zeros((100, 1, 16, 16))}, "not float64"),
        ({"images": np.full((100, 1, 16, 16), np.nan, np.float32)}, "must be finite"),
        ({"labels": np.zeros(99, np.int64)}, "one whole-number label each"),
        ({"labels": np.zeros(100, np.int64)}, "asks for 10 synthetic images of each of 10 classes"),
        ({"labels": np.arange(20).repeat(5)}, "asks for 10 synthetic images"),
        ({"trigger": np.zeros((1, 8, 8), np.float32)}, "a trigger must be finite and of shape"),
        ({"trigger": np.full((1, 16, 16), np.inf, np.float32)}, "a trigger must be finite"),
    ],
)
def test_sets_that_break_the_contract(digits, change, message):
    with pytest.raises(InvalidPrediction, match=message):
        distilled_sets.check_distilled(set_of(digits, **change), digits, protocol())


def test_a_schedule_allows_the_images_in_every_batch(digits):
    schedule = StepSchedule(np.arange(2).repeat(100), np.ones(4, np.float32), np.zeros(5_122, np.float32))
    labels = np.tile(np.arange(10).repeat(10), 2)
    distilled = DistilledSet(np.zeros((200, 1, 16, 16), np.float32), labels, schedule=schedule)
    distilled_sets.check_distilled(distilled, digits, protocol())
    with pytest.raises(InvalidPrediction, match="asks for 10"):
        distilled_sets.check_distilled(replace(distilled, schedule=None), digits, protocol())
    negative = replace(schedule, step_sizes=-schedule.step_sizes)
    with pytest.raises(InvalidPrediction, match="step sizes"):
        distilled_sets.check_distilled(replace(distilled, schedule=negative), digits, protocol())


# --- data -------------------------------------------------------------------------------------------------------


def test_validation_takes_a_fifth_of_the_training_images_and_no_test_image(digits, context):
    held_out = distilled_sets.judged_data({"train": digits, "test": digits}, context(split="val"))
    assert len(held_out.test_labels) == 260
    assert len(held_out.train_labels) == 1297 - 260
    shares = np.bincount(held_out.test_labels) / np.bincount(digits.train_labels)
    assert np.allclose(shares, 0.2, atol=0.02)
    together = np.concatenate([held_out.train_images, held_out.test_images]).reshape(1297, -1)
    original = digits.train_images.reshape(1297, -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, original))


def test_methods_see_neither_test_images_nor_test_labels(digits, context):
    data = {"train": digits, "test": digits}
    ctx = context(max_steps=1)
    DistillationBackdoor().evaluate(Recorder(NoSettings()), data, protocol(), ctx)
    assert Recorder.given.images.shape == digits.train_images.shape
    assert not {bytes(i) for i in Recorder.given.images} & {bytes(i) for i in digits.test_images}


def test_a_method_that_scribbles_on_its_images_leaves_the_controls_clean(digits, context):
    before = digits.training_hash()

    class Scribbler(Recorder):
        def distil(self, training, protocol, ctx):
            training.images[:] = 255
            training.labels[:] = 0
            return super().distil(training, protocol, ctx)

    ctx = context()
    distilled_sets.distilled_set(Scribbler(NoSettings()), digits, protocol(), ctx)
    assert digits.training_hash() == before
    given = distilled_sets.training_part(digits)
    assert given.labels.max() == 9


def test_changed_answers_change_test_labels_only(digits):
    changed = DistillationBackdoor().with_other_answers({"train": digits, "test": digits})["test"]
    assert (changed.test_labels != digits.test_labels).all()
    assert changed.training_hash() == digits.training_hash()
    assert (changed.test_images == digits.test_images).all()


# --- victims ----------------------------------------------------------------------------------------------------


def test_victims_follow_the_published_schedule(digits, context):
    """A naive loop: momentum, weight decay, and a tenth of the rate with a new optimiser after pass epochs // 2 + 1."""
    settings = victims.victim_settings(digits, protocol(victim_epochs=6))
    distilled, ctx = set_of(digits), context()
    victim = victims.train_victim(distilled, settings, ctx)
    seed = ctx.seed_for("victim", "victim")
    network = seeded_network("convnet-small", 1, 10, 16, seed)
    order = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(distilled.images), torch.from_numpy(distilled.labels)
    momenta, rate = [torch.zeros_like(p) for p in network.parameters()], 0.02
    for epoch in range(7):
        batch = torch.randperm(100, generator=order)
        gradients = torch.autograd.grad(
            F.cross_entropy(network(images[batch]), labels[batch]), list(network.parameters())
        )
        with torch.no_grad():
            for p, g, m in zip(network.parameters(), gradients, momenta, strict=True):
                m.mul_(0.9).add_(g + 5e-4 * p)
                p -= rate * m
        if epoch == 4:  # 6 // 2 + 1
            momenta, rate = [torch.zeros_like(p) for p in network.parameters()], 0.002
    for found, expected in zip(victim.parameters(), network.parameters(), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


def test_victims_of_one_set_differ_by_seed_and_repeat(digits, context):
    settings, distilled = victims.victim_settings(digits, protocol()), set_of(digits)
    one, again, other = (
        victims.trained_victim(distilled, settings, context(victim=seed)).classifier[0].weight for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_schedule_is_followed_from_its_own_weights(digits, context):
    network = build_network("convnet-small", 1, 10, 16)
    start = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    schedule = StepSchedule(np.arange(2).repeat(50), np.array([0.1, 0.2, 0.3], np.float32), start.numpy())
    distilled = replace(set_of(digits), schedule=schedule)
    victim = victims.train_victim(distilled, victims.victim_settings(digits, protocol()), context())
    images, labels = torch.from_numpy(distilled.images), torch.from_numpy(distilled.labels)
    for batch, size in ((slice(0, 50), 0.1), (slice(50, 100), 0.2), (slice(0, 50), 0.3)):
        gradients = torch.autograd.grad(
            F.cross_entropy(network(images[batch]), labels[batch]), list(network.parameters())
        )
        with torch.no_grad():
            for p, g in zip(network.parameters(), gradients, strict=True):
                p -= size * g
    for found, expected in zip(victim.parameters(), network.parameters(), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


def test_training_as_prescribed_leaves_the_prescription_alone(digits, context):
    start = seeded_network("convnet-small", 1, 10, 16, seed=3)
    flat = torch.nn.utils.parameters_to_vector(start.parameters()).detach().numpy().copy()
    kept = flat.copy()
    schedule = StepSchedule(np.zeros(100, dtype=np.int64), np.full(3, 0.1, dtype=np.float32), flat)
    settings = victims.victim_settings(digits, protocol())
    victims.train_victim(set_of(digits, schedule=schedule), settings, context())
    assert np.array_equal(flat, kept)


def test_another_architecture_starts_from_weights_of_its_own(digits, context):
    schedule = StepSchedule(np.zeros(100, np.int64), np.array([0.1], np.float32), np.zeros(5_122, np.float32))
    settings = victims.victim_settings(digits, protocol(victim="alexnet"))
    victim = victims.train_victim(replace(set_of(digits), schedule=schedule), settings, context())
    assert settings.architecture == "alexnet"
    assert victim.features[0].weight.abs().max() > 0


def test_prediction_stamps_test_images_only_under_the_patch(digits, context):
    settings = victims.victim_settings(digits, protocol())
    seen = []

    def network(images):
        seen.append(images.clone())
        return torch.zeros(len(images), 10)

    trigger = torch.full((1, 16, 16), 7.0)
    clean = victims.predict(network, digits.test_images[:5], settings, None, context())
    victims.predict(network, digits.test_images[:5], settings, trigger, context())
    assert clean.tolist() == [0] * 5  # ties go to the lowest class
    assert (seen[1][:, :, 13:15, 13:15] == 7.0).all()
    seen[1][:, :, 13:15, 13:15] = seen[0][:, :, 13:15, 13:15]
    assert torch.equal(*seen)


# --- the whole run ----------------------------------------------------------------------------------------------


def test_an_evaluation_keeps_what_it_promises(digits, context):
    ctx = context(max_steps=1)
    outcome = DistillationBackdoor().evaluate(
        Recorder(NoSettings()), {"train": digits, "test": digits}, protocol(), ctx
    )
    assert set(outcome.scores) == set(DistillationBackdoor.metric_names())
    assert outcome.scores["trigger_amplitude"] == 50.0
    assert outcome.counts["test_images"] == 500
    assert outcome.counts["test_images_of_target_class"] == int((digits.test_labels == 0).sum())
    assert outcome.counts["synthetic_images"] == 100
    assert outcome.counts["calls"] == 3
    assert [row["class"] for row in outcome.tables["classes"]] == list(range(10))
    assert np.load(ctx.artifact("trigger.npy")).shape == (1, 16, 16)
    table = np.loadtxt(ctx.artifact("predictions.csv"), delimiter=",", skiprows=1, dtype=int)
    assert table.shape == (500, 6)
    judged = judge(
        dict(
            zip(("clean", "triggered", "triggered_valid_pixels", "control_start", "control"), table.T[1:], strict=True)
        ),
        digits.test_labels,
        0,
    )
    assert all(judged.scores[name] == outcome.scores[name] for name in judged.scores)


def test_who_meets_which_trigger(digits, context, monkeypatch):
    """The victim meets the final trigger and what an image file holds of it, the control the first and the final."""
    trained, met = [], []
    plain_victim, plain_predict = victims.trained_victim, victims.predict

    def trained_victim(*arguments):
        trained.append((arguments[0], plain_victim(*arguments)))
        return trained[-1][1]

    def predict(network, images, settings, trigger, ctx):
        patch = None if trigger is None else trigger[0, 13:15, 13:15]
        met.append((network, None if patch is None else float(patch.max())))
        return plain_predict(network, images, settings, trigger, ctx)

    monkeypatch.setattr(victims, "trained_victim", trained_victim)
    monkeypatch.setattr(victims, "predict", predict)
    ctx = context(max_steps=1)
    DistillationBackdoor().evaluate(Recorder(NoSettings()), {"train": digits, "test": digits}, protocol(), ctx)
    (made, victim), (clean, control) = trained
    assert made.trigger is not None
    assert clean.trigger is None
    white = (1 - digits.mean[0]) / digits.std[0]
    expected = [(victim, None), (victim, 50.0), (victim, white), (control, 0.0), (control, 50.0)]
    assert [network for network, _ in met] == [network for network, _ in expected]
    assert [value for _, value in met[1:]] == pytest.approx([value for _, value in expected[1:]])
    assert met[0][1] is None


def test_counts_follow_the_predictions():
    labels = np.array([0, 0, 1, 2, 3])
    always = dict.fromkeys(
        ("clean", "triggered", "triggered_valid_pixels", "control_start", "control"), np.zeros(5, dtype=np.int64)
    )
    scores = judge(always, labels, 0).scores
    assert (scores["cta"], scores["asr"], scores["asr_nontarget"], scores["control_asr"]) == (0.4, 1.0, 1.0, 1.0)
    perfect = dict.fromkeys(always, labels)
    scores = judge(perfect, labels, 0).scores
    assert (scores["cta"], scores["asr"], scores["asr_nontarget"]) == (1.0, 0.4, 0.0)
    only_target = judge(dict.fromkeys(always, np.zeros(2, np.int64)), np.zeros(2, np.int64), 0)
    assert only_target.scores["asr_nontarget"] is None
    assert "asr_nontarget" in only_target.undefined


def test_sets_survive_the_cache(digits, tmp_path):
    schedule = StepSchedule(np.zeros(100, np.int64), np.ones(2, np.float32), np.zeros(7, np.float32))
    trigger = np.ones((1, 16, 16), np.float32)
    for distilled in (set_of(digits), set_of(digits, trigger=trigger, start_trigger=2 * trigger, schedule=schedule)):
        distilled_sets.save_distilled(distilled, tmp_path / "set.npz")
        again = distilled_sets.load_distilled(tmp_path / "set.npz", {})
        assert np.array_equal(again.images, distilled.images)
        assert (again.trigger is None) == (distilled.trigger is None)
        if distilled.schedule is not None:
            assert np.array_equal(again.start_trigger, 2 * trigger)
            assert np.array_equal(again.schedule.step_sizes, schedule.step_sizes)


def test_contact_sheet(digits, tmp_path):
    from PIL import Image

    distilled = set_of(digits)
    trigger = np.full(digits.shape, 500.0, np.float32)
    pictures.write_contact_sheet(
        tmp_path / "sheet.png", distilled.images, distilled.labels, trigger, distilled_sets.training_part(digits)
    )
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (2 * (10 * 18 + 2), 2 * (11 * 18 + 2))
        assert sheet.getpixel((10, sheet.size[1] - 10)) == (255, 255, 255)


def test_a_mistake_in_a_run_is_one_line(cli):
    done = cli("run", "--task", "distillation-backdoor", "--method", "dc", "--set", "task.target_class=12", "--json")
    assert done.code == 1
    (result,) = json.loads(done.out)
    assert result["error"]["message"] == "target_class=12 is none of the 10 classes of digits: give 0 to 9"
