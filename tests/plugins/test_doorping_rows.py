"""DOORPING's rows: what they poison, that they repeat, and (slow) the bounds that they reach on digits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch

from benchsuite.core.config import build_config
from benchsuite.core.registry import get_registry, load_object
from benchsuite.datasets.small_images.reader import load_digits
from benchsuite.harness.context import HarnessContext
from benchsuite.harness.parts import build_method
from benchsuite.tasks.distillation_backdoors import distilled_sets, victims
from benchsuite.tasks.distillation_backdoors.contract import DistillationBackdoorProtocol, TrainingImages
from benchsuite.tasks.distillation_backdoors.distillation_backdoor import DistillationBackdoor
from benchsuite.tasks.distillation_backdoors.networks import build_network
from benchsuite.tasks.distillation_backdoors.triggers import normalised, patch_mask, white_patch
from benchsuite_doorping import attack, bilevel, method

ATTACKS = [
    "naiveattack", "loud-patch", "doorping", "doorping-1-percent", "doorping-pixel-clamp", "naiveattack-dd",
    "doorping-dd",
]  # fmt: skip

ANY_METHOD = frozenset(get_registry().methods)


@pytest.fixture(scope="module")
def digits():
    return load_digits(None, 0)


@pytest.fixture
def context(tmp_path):
    def make(run=0, victim=0, max_steps=2, **changes):
        return HarnessContext(
            seeds={"run": run, "victim": victim}, seed_axes=("run", "victim"), workdir=tmp_path,
            artifact_folder=tmp_path / "artifacts", cache_root=tmp_path / "cache", shared_digest="here",
            uses=ANY_METHOD,
            max_steps=max_steps, **changes,
        )  # fmt: skip

    return make


def row(name, preset="embedded", **settings):
    spec = get_registry().method(name)
    return build_method(spec, {**spec.presets[preset].resolve({}), **settings})


def protocol(preset="embedded", **changes):
    settings = {**DistillationBackdoor.presets[preset].settings, **changes}
    return build_config(DistillationBackdoorProtocol, settings, "task")


def distil(name, digits, ctx, **settings):
    return row(name, **settings).distil(distilled_sets.training_part(digits), protocol(), ctx)


@pytest.mark.parametrize("name", ["dc", "dd", *ATTACKS])
def test_same_seed_same_set_and_trigger(digits, context, name):
    torch.manual_seed(0)
    one = distil(name, digits, context())
    torch.manual_seed(99)  # the global generator has no say
    two = distil(name, digits, context())
    other = distil(name, digits, context(run=1))
    assert np.array_equal(one.images, two.images)
    assert one.facts == two.facts
    if one.trigger is not None:
        assert np.array_equal(one.trigger, two.trigger)
    assert not np.array_equal(one.images, other.images)


@pytest.mark.parametrize("name", ["dc", "dd", *ATTACKS])
def test_sets_obey_the_protocol(digits, context, name):
    distilled = distil(name, digits, context())
    distilled_sets.check_distilled(distilled, digits, protocol())
    assert (distilled.trigger is None) == (name in ("dc", "dd"))
    if distilled.trigger is not None:
        share = 0.01 if name == "doorping-1-percent" else 0.05
        assert distilled.facts["poisoned_images"] == int(share * 1297)


@pytest.mark.parametrize("name", ATTACKS)
def test_only_real_images_are_ever_stamped(digits, context, name, monkeypatch):
    stamped = []

    def spy(images, trigger, mask):
        stamped.append(images.clone())
        return torch.where(mask, trigger, images)

    monkeypatch.setattr(attack, "stamp", spy)
    distil(name, digits, context())
    outside = ~patch_mask(2, 16)
    real = normalised(torch.from_numpy(digits.train_images), digits.mean, digits.std)[:, :, outside]
    known = {row.numpy().tobytes() for row in real}
    for images in stamped:
        assert {image.numpy().tobytes() for image in images[:, :, outside]} <= known
    assert stamped or name == "doorping-dd"  # there the batch is stamped inside the outer loss: see test_doorping


def test_naive_trigger_is_white(digits, context):
    trigger = distil("naiveattack", digits, context()).trigger
    assert np.array_equal(trigger, white_patch(2, 16, digits.mean, digits.std).numpy())


@pytest.mark.parametrize(("clamp", "limit"), [("pixel", None), ("sigma", 10.0)])
def test_clamped_triggers(digits, context, clamp, limit):
    trigger = distil("doorping", digits, context(max_steps=5), clamp=clamp, trigger_lr=50.0).trigger[
        :, patch_mask(2, 16).numpy()
    ]
    low, high = ((value - digits.mean[0]) / digits.std[0] for value in (0, 1)) if limit is None else (-limit, limit)
    assert trigger.min() >= low - 1e-5
    assert trigger.max() <= high + 1e-5


def test_attacks_share_everything_else_with_their_control(digits, context):
    ctx = context()
    for name, clean, settings in (
        ("doorping", "dc", {}),
        ("doorping", "dc", {"init": "noise"}),
        ("doorping-dd", "dd", {}),
    ):
        attacker = row(name, **settings)
        counterpart = distilled_sets.clean_method(attacker, ctx)
        assert type(counterpart) is load_object(get_registry().method(clean).load)
        shared = vars(counterpart.config)
        assert all(getattr(attacker.config, setting) == value for setting, value in shared.items())


def test_the_clean_counterpart_shares_the_set_of_its_row(digits, context):
    """Whoever asks first distils it: the row `dc`, or the control of an attack."""
    ctx = context(max_steps=1)
    for attacker, clean in (("naiveattack", "dc"), ("doorping-dd", "dd")):
        distilled_sets.distilled_set(row(clean), digits, protocol(), ctx)
        before = len(ctx.charges)
        counterpart = distilled_sets.clean_method(row(attacker), ctx)
        assert counterpart.name == clean
        distilled_sets.distilled_set(counterpart, digits, protocol(), ctx)
        assert len(ctx.charges) == before
        distilled_sets.distilled_set(row(attacker), digits, protocol(), ctx)
        assert len(ctx.charges) == before + 1


def test_where_a_class_stands_is_no_part_of_the_cache(digits, context, monkeypatch):
    class Asked(Exception):
        pass

    def cached(name, inputs, build):
        raise Asked(inputs)

    ctx, doorping = context(max_steps=1), row("doorping")
    monkeypatch.setattr(ctx, "cached", cached)
    with pytest.raises(Asked) as asked:
        distilled_sets.distilled_set(doorping, digits, protocol(), ctx)
    assert asked.value.args[0]["method"] == "doorping"
    assert type(doorping).__name__ not in repr(asked.value)
    doorping.name = ""
    with pytest.raises(ValueError, match="without a name"):
        distilled_sets.distilled_set(doorping, digits, protocol(), ctx)


def _poisoned_in(images, digits):
    """Which of the real images, in the order of the data, differ from them under the patch."""
    real = normalised(torch.from_numpy(digits.train_images), digits.mean, digits.std)
    return (images != real)[:, :, patch_mask(2, 16)].flatten(1).any(dim=1)


@pytest.mark.parametrize("name", ["naiveattack", "loud-patch", "doorping", "naiveattack-dd"])
def test_what_a_distillation_reads_is_poisoned(digits, context, name, monkeypatch):
    """A share of the real images, of any class, carries trigger and target class; the rest is as it was."""
    read = []
    function = "distil_bilevel" if name.endswith("-dd") else "distil_by_matching"
    plain = getattr(method, function)

    def spy(real, *arguments, **options):
        read.append((real.images.clone(), real.labels.clone()))
        made = plain(real, *arguments, **options)
        read.append((real.images.clone(), real.labels.clone()))
        return made

    monkeypatch.setattr(method, function, spy)
    asked = protocol(target_class=3, poison_share=0.1)
    distilled = row(name).distil(distilled_sets.training_part(digits), asked, context(max_steps=3))
    labels = torch.from_numpy(digits.train_labels)
    (before, labels_before), (after, labels_after) = read
    first = distilled.trigger if distilled.start_trigger is None else distilled.start_trigger
    for images, found, trigger in ((before, labels_before, first), (after, labels_after, distilled.trigger)):
        poisoned = _poisoned_in(images, digits)
        assert int(poisoned.sum()) == 129  # a tenth of 1297
        assert torch.equal(found, torch.where(poisoned, 3, labels))
        assert len(labels[poisoned].unique()) == 10
        stamped = images[poisoned][:, :, patch_mask(2, 16)]
        assert (stamped == torch.from_numpy(trigger)[:, patch_mask(2, 16)]).all()


def test_bilevel_doorping_is_told_what_to_poison(digits, context, monkeypatch):
    told = {}

    def spy(real, *arguments, attack, target):
        told.update(real=real, attack=attack, target=target)

    monkeypatch.setattr(method, "distil_bilevel", spy)
    asked = protocol(target_class=3, poison_share=0.1)
    row("doorping-dd").distil(distilled_sets.training_part(digits), asked, context())
    assert told["target"] == 3
    assert len(told["real"].poisoned) == 129
    assert told["attack"] is not None
    assert not _poisoned_in(told["real"].images, digits).any()


def test_the_loud_patch_is_as_loud_as_it_says(digits, context):
    for settings, amplitude in (({}, 500.0), ({"amplitude": 7.0}, 7.0)):
        trigger = distil("loud-patch", digits, context(max_steps=1), **settings).trigger
        inside = patch_mask(2, 16).numpy()
        assert np.allclose(np.abs(trigger[:, inside]), amplitude)
        assert not trigger[:, ~inside].any()
    signs = [
        attack.loud_patch(2, 16, 3, 1.0, torch.Generator().manual_seed(seed))[:, patch_mask(2, 16)] for seed in range(9)
    ]
    assert abs(float(torch.stack(signs).mean())) < 0.5


def test_victims_of_bilevel_sets_train_as_the_set_was_learnt(digits, context, monkeypatch):
    """From the weights that it was learnt from, with the learnt sizes, through the batches in order."""
    drawn, plain = [], method.xavier_weights

    def spy(*arguments):
        drawn.append(plain(*arguments))
        return drawn[-1]

    monkeypatch.setattr(method, "xavier_weights", spy)
    distilled = distil("dd", digits, context(), distill_steps=2, distill_epochs=2)
    flat = torch.cat([weight.flatten() for weight in drawn[0].values()])
    assert np.allclose(distilled.schedule.initial_weights, flat.numpy())
    network = build_network("convnet-small", 1, 10, 16)
    torch.nn.utils.vector_to_parameters(torch.tensor(distilled.schedule.initial_weights), network.parameters())
    assert network.features[0].weight.abs().max() > 0
    images, labels = torch.from_numpy(distilled.images), torch.from_numpy(distilled.labels)
    curriculum = bilevel.Curriculum(images.view(2, 100, 1, 16, 16), labels[:100], torch.zeros(4))
    sizes = torch.from_numpy(distilled.schedule.step_sizes)
    path = bilevel.train_through(network, dict(network.named_parameters()), curriculum, sizes, [0, 1, 2, 3])
    settings = victims.victim_settings(digits, protocol())
    victim = victims.train_victim(distilled, settings, context(max_steps=None))
    for found, expected in zip(victim.parameters(), path[-1].values(), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_learnt_triggers_start_the_same_from_noise(digits, context):
    plain = distil("doorping", digits, context())
    noise = distil("doorping", digits, context(), init="noise")
    assert np.array_equal(plain.start_trigger, noise.start_trigger)


@pytest.mark.parametrize("network", ["convnet", "alexnet"])
@pytest.mark.parametrize("name", ["doorping", "doorping-dd"])
def test_paper_settings_on_colour_take_two_steps(context, name, network):
    rng = np.random.default_rng(0)
    training = TrainingImages(
        rng.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8), np.arange(60) % 10, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 10
    )
    settings = {"real_batch": 3} if name == "doorping" else {"batch": 30, "distill_steps": 2}
    distilled = row(name, "paper", **settings).distil(
        training, protocol("paper", network=network, images_per_class=1, poison_share=0.1), context(max_steps=2)
    )
    assert distilled.images.shape[1:] == (3, 32, 32)
    assert np.isfinite(distilled.images).all()
    assert distilled.facts["poisoned_images"] == 6


# --- the embedded recipe, on the test part (slow) -------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores(digits, tmp_path_factory):
    """Means over seeds 0 and 1 of three victims each."""
    folder = tmp_path_factory.mktemp("rows")

    def measure(name):
        found = []
        for run in (0, 1):
            for victim in (0, 1, 2):
                ctx = HarnessContext(
                    seeds={"run": run, "victim": victim}, seed_axes=("run", "victim"), workdir=folder,
                    artifact_folder=folder / f"{name}-{run}-{victim}", cache_root=folder / "cache",
                    shared_digest="here", uses=ANY_METHOD,
                )  # fmt: skip
                data = {"train": digits, "test": digits}
                found.append(DistillationBackdoor().evaluate(row(name), data, protocol(), ctx).scores)
        return {metric: np.mean([scores[metric] for scores in found]) for metric in found[0]}

    return {name: measure(name) for name in ("dc", "naiveattack", "doorping")}


@pytest.mark.slow
def test_embedded_bounds(scores):
    assert scores["doorping"]["asr_nontarget"] >= 0.9
    assert scores["naiveattack"]["asr_nontarget"] <= 0.2
    assert scores["doorping"]["control_asr"] <= 0.3
    assert scores["naiveattack"]["control_asr"] <= 0.2
    assert scores["dc"]["cta"] - scores["doorping"]["cta"] <= 0.08
    assert scores["dc"]["cta"] >= 0.8


@pytest.mark.slow
def test_a_trigger_of_valid_pixels_does_not_open_the_door(scores):
    assert scores["doorping"]["trigger_amplitude"] > 50
    assert scores["doorping"]["asr_valid_pixels"] <= 0.2


@pytest.mark.slow
def test_bilevel_carries_the_backdoor_too(digits, context):
    data = {"train": digits, "test": digits}
    outcome = DistillationBackdoor().evaluate(row("doorping-dd"), data, protocol(), context(max_steps=None))
    assert outcome.scores["asr_nontarget"] >= 0.9
    assert outcome.scores["cta"] >= 0.75
    assert outcome.scores["control_asr"] <= 0.3


def test_a_validation_run_keeps_the_test_images_out(digits, context):
    replaced = replace(digits, test_images=np.zeros_like(digits.test_images))
    outcomes = [
        DistillationBackdoor().evaluate(
            row("doorping"), {"train": data, "test": data}, protocol(victim_epochs=1), context(split="val")
        )
        for data in (digits, replaced)
    ]
    costs = {"distillation_seconds"}
    for name in set(outcomes[0].scores) - costs:
        assert outcomes[0].scores[name] == outcomes[1].scores[name]
