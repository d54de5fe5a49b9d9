"""DOORPING's trainings go on after a kill as if nothing had happened: distillations, victims, Neural Cleanse."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from support import Killable, Killed

from benchsuite.core.registry import get_registry
from benchsuite.harness.checkpoint import EVERY_STEPS
from benchsuite.harness.parts import build_method
from benchsuite.tasks.distillation_backdoors import victims
from benchsuite.tasks.distillation_backdoors.contract import (
    DistillationBackdoorProtocol,
    DistilledSet,
    TrainingImages,
)
from benchsuite.tasks.distillation_backdoors.defense_contract import Case
from benchsuite.tasks.distillation_backdoors.networks import seeded_network

PROTOCOL = DistillationBackdoorProtocol(images_per_class=2, poison_share=0.1, network="convnet-small")
MATCHING = {"iterations": 9, "outer": 2, "inner": 2, "real_batch": 3, "init": "real"}
BILEVEL = {"distill_steps": 2, "distill_epochs": 2, "epochs": 4, "batch": 24, "decay_epochs": 1}
TRIGGER = {"trigger_steps": 3, "trigger_lr": 0.5, "trigger_stop": 1e-9, "topk": 5}
ROWS = {
    "dc": MATCHING, "naiveattack": MATCHING, "loud-patch": MATCHING, "doorping": {**MATCHING, **TRIGGER},
    "dd": BILEVEL, "naiveattack-dd": BILEVEL, "doorping-dd": {**BILEVEL, **TRIGGER},
}  # fmt: skip


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setenv(EVERY_STEPS, "2")

    def make(place, kill=None):
        folder = tmp_path / place
        return Killable(
            seeds={"run": 0, "victim": 0}, seed_axes=("run", "victim"), workdir=folder,
            artifact_folder=folder / "artifacts", cache_root=folder / "cache", shared_digest="here",
            uses=frozenset(get_registry().methods), checkpoint_folder=folder / "checkpoints", kill=kill,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def training():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 16, 16), dtype=np.uint8)
    return TrainingImages(images, np.arange(60) % 10, (0.5,), (0.3,), 10)


def assert_goes_on(context, train, name, stops, total):
    """Kill a training at each of the stops, and compare what comes of it with an uninterrupted one."""
    whole = context("whole")
    expected = train(whole)
    assert whole.taken[name] == list(range(total))
    for stop in stops:
        with pytest.raises(Killed):
            train(context(f"killed-{stop}", kill=(name, stop)))
        torch.manual_seed(stop)  # a new process has another state
        again = context(f"killed-{stop}")
        found = train(again)
        assert again.taken[name] == list(range(stop - stop % 2, total))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("row", ROWS)
def test_distillations(context, training, row):
    def train(ctx):
        distilled = build_method(get_registry().method(row), ROWS[row]).distil(training, PROTOCOL, ctx)
        if row.startswith("doorping"):  # else nothing is learnt that could be lost
            assert not np.array_equal(distilled.trigger, distilled.start_trigger)
        kept = [distilled.images, *sorted(distilled.facts.items())]
        kept += [t for t in (distilled.trigger, distilled.start_trigger) if t is not None]
        return kept if distilled.schedule is None else [*kept, *vars(distilled.schedule).values()]

    total = MATCHING["iterations"] + 1 if "iterations" in ROWS[row] else 4 * 3  # 60 images are three batches of 24
    assert_goes_on(context, train, "distillation", (3, 5, 8), total)


def test_victims(context):
    """Also across the pass with the new optimiser (12 // 2 + 1)."""
    rng = np.random.default_rng(0)
    distilled = DistilledSet(rng.normal(size=(20, 1, 16, 16)).astype(np.float32), np.arange(10).repeat(2))
    settings = victims.VictimSettings("convnet-small", 1, 16, 10, 12, 0.02, 2, (0.5,), (0.3,))

    def train(ctx):
        return [p.detach().numpy() for p in victims.train_victim(distilled, settings, ctx).parameters()]

    assert_goes_on(context, train, "victim", (5, 8, 11), 13)


def test_neural_cleanse(context):
    """The masks before the one that is killed are not looked for again."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(24, 1, 16, 16, generator=generator)
    labels = torch.arange(24) % 10
    case = Case(
        seeded_network("convnet-small", 1, 10, 16, 0), images, labels, images, labels, images, (0.5,), (0.3,), 10
    )

    def train(ctx):
        settings = {"epochs": 8, "batch": 8, "lr": 0.1}
        verdict = build_method(get_registry().method("neural-cleanse"), settings).inspect(case, ctx)
        return [verdict.scores, verdict.flagged]

    assert_goes_on(context, train, "mask-4", (3, 5, 6), 8)
    again = context("killed-3")
    train(again)
    assert again.taken == {}  # what is finished is kept


def test_a_mask_that_was_given_up_is_given_up_again(context):
    images = torch.zeros(4, 1, 16, 16)
    labels = torch.zeros(4, dtype=torch.int64)
    case = Case(
        seeded_network("convnet-small", 1, 10, 16, 0), images, labels, images, labels, images, (0.5,), (0.3,), 10
    )

    def train(ctx):
        settings = {"epochs": 30, "patience": 3, "batch": 4, "lr": 0.3, "mask_weight": 0.0}
        verdict = build_method(get_registry().method("neural-cleanse"), settings).inspect(case, ctx)
        return verdict.scores.tolist(), {name: len(steps) for name, steps in ctx.taken.items()}

    scores, taken = train(context("whole"))
    assert min(taken.values()) < 30
    late = min(taken, key=taken.get)
    with pytest.raises(Killed):
        train(context("killed", kill=(late, taken[late] - 1)))
    again, retaken = train(context("killed"))
    assert again == scores
    assert 0 < retaken[late] < taken[late]
