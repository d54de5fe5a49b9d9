"""RefT's rows as runs: stages, what they read, share and save; the real sample; the full size (slow)."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("hotcoco")

import torch

from benchsuite.core.registry import get_registry
from benchsuite.datasets.coco import generated as synth_fsis
from benchsuite.harness.context import HarnessContext
from benchsuite.tasks.fewshot_instance_segmentation import task as few
from benchsuite.tasks.fewshot_instance_segmentation.contract import FewShotProtocol
from benchsuite.tasks.fewshot_instance_segmentation.tuning import arrivals, check_state
from benchsuite_reft.config import Mask2FormerConfig, RefTConfig
from benchsuite_reft.images import inference_view, normalised
from benchsuite_reft.method import Mask2FormerFineTuned, OtherSupports, RefTFineTuned, Tuning

TASKS = {"fsis": few.FewShot, "gfsis": few.GeneralisedFewShot, "ifsis": few.IncrementalFewShot}
TINY = {"base_steps": 3, "refine_steps": 2, "tune_steps": 2, "batch_size": 2, "tune_batch_size": 2, "points": 32}
INCREMENTAL = {"head": "cosine", "trainable": "projections"}


@pytest.fixture(scope="module")
def dataset():
    return synth_fsis.load_generated(None, 0)


def few_shot(dataset, setting, shots=2):
    protocol = FewShotProtocol(shots=shots)
    base, shots, _ = TASKS[setting]().few_shot_data(dataset, dataset.train, protocol, 3)
    return base, shots


def fitted(method, config, data, ctx):
    """Return the model that two separate objects of the method make, as in a run."""
    base, shots = data
    return method(config).tune(method(config).learn_base(base, ctx), shots, ctx)


def context(folder, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "work").mkdir(exist_ok=True)
    settings = {"seeds": {"base": 0, "shots": 0}, "seed_axes": ("base", "shots"), "shared_digest": "same"}
    places = {"workdir": folder / "work", "artifact_folder": folder / "artifacts", "cache_root": folder / "cache"}
    return HarnessContext(**{**settings, **places, **changes})


def images_of(dataset, count=3):
    return [dataset.test[i].pixels() for i in range(count)]


@torch.no_grad()
def logits_of(segmenter, images):
    """Return the class logits: a network of a few steps has them, but finds no object yet."""
    batch = normalised([inference_view(image, 64, 64)[0] for image in images], torch.device("cpu"))
    return segmenter.model.eval()(batch, segmenter.references).class_logits


@pytest.mark.parametrize("distillation", [True, False])
def test_incremental_tuning_reads_no_base_image_and_keeps_base_rows(dataset, tmp_path, distillation):
    base, data = few_shot(dataset, "ifsis")
    assert data.base_images is None
    config = RefTConfig(**TINY, **INCREMENTAL, distillation=distillation)
    segmenter = fitted(RefTFineTuned, config, (base, data), context(tmp_path / "run"))
    head = segmenter.model.network.head
    again = fitted(RefTFineTuned, replace(config, tune_steps=1), (base, data), context(tmp_path / "run"))
    assert torch.equal(head.known, again.model.network.head.known)
    assert not torch.equal(head.novel, again.model.network.head.novel)
    assert [len(level) for level in segmenter.references.centres] == [12, 12, 12]
    assert set(segmenter.references.token_labels.tolist()) == set(range(12))
    assert {c for found in segmenter.predict(images_of(dataset)) for c in (d.category_id for d in found)} <= set(
        data.head_classes
    )


def one_by_one(method, config, dataset, folder, **changes):
    """Yield what each call of tuning sees, its model, and what that leaves for the next."""
    base, data = few_shot(dataset, "ifsis")
    state = method(config).learn_base(base, context(folder, **changes))
    for stage in arrivals(data):
        segmenter = method(config).tune(state, stage, context(folder, **changes))
        state = check_state(segmenter.state())
        yield stage, segmenter, state


@pytest.mark.parametrize("method", [Mask2FormerFineTuned, RefTFineTuned])
def test_classes_are_added_one_by_one(dataset, tmp_path, method):
    """Rows of what is known stay as they are, in the order in which classes came; references are kept as vectors."""
    distilled = {"distillation": True} if method is RefTFineTuned else {}
    config, before = method.Config(**TINY, **INCREMENTAL, **distilled), None
    for known, (stage, segmenter, state) in enumerate(one_by_one(method, config, dataset, tmp_path / "run"), start=9):
        head = segmenter.model.network.head
        rows = torch.from_numpy(state["model.network.class_head.known"])
        assert torch.equal(rows, torch.cat([head.known, head.novel]))
        assert rows.shape == (known, 64)
        if before is not None:
            assert torch.equal(rows[:-1], before)
        before = rows
        assert list(segmenter.categories.values()) == [*stage.base_classes, *stage.novel_classes]
        if method is RefTFineTuned:
            assert sorted(set(state["stored.token_labels"].tolist())) == list(range(known))
            assert state["stored.centres.0"].shape == (known, 64)
    assert segmenter.categories == dict(enumerate(range(1, 13)))
    assert np.isfinite(logits_of(segmenter, images_of(dataset)).numpy()).all()


def test_classes_that_come_one_by_one_have_seeds_of_their_own(dataset, tmp_path):
    """Else each would see its shots in the order, flipped as, and from the noise of the one before."""
    _, data = few_shot(dataset, "ifsis")
    run = context(tmp_path / "run")
    seeds = {Tuning(RefTConfig(), stage, run, shows_other_supports=False).seed for stage in arrivals(data)}
    assert len(seeds) == 4


def test_a_model_saved_after_the_last_class_is_judged_again(dataset, tmp_path):
    config = RefTConfig(**TINY, **INCREMENTAL)
    wanted = frozenset({"model"})
    *_, (_, trained, _) = one_by_one(RefTFineTuned, config, dataset, tmp_path / "run", wanted_artifacts=wanted)
    saved = tmp_path / "run/artifacts/model.safetensors"
    *_, (_, loaded, _) = one_by_one(RefTFineTuned, config, dataset, tmp_path / "again", weights=saved)
    assert torch.equal(logits_of(trained, images_of(dataset)), logits_of(loaded, images_of(dataset)))
    assert loaded.categories == trained.categories
    assert not list((tmp_path / "again").glob("cache/**/model.safetensors"))


@pytest.mark.parametrize("method", [pytest.param(Mask2FormerFineTuned, marks=pytest.mark.slow), RefTFineTuned])
def test_a_stage_in_segments_trains_like_one_in_a_piece(dataset, tmp_path, method):
    states = []
    for segment in (100, 2):
        config = method.Config(**TINY, segment=segment)
        run = context(tmp_path / f"segments-{segment}")
        states.append(fitted(method, config, few_shot(dataset, "fsis"), run).model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_rows_settings_and_shots_share_the_base_stage(dataset, tmp_path):
    folder = tmp_path / "shared"
    plain, referring = Mask2FormerConfig(**TINY), RefTConfig(**TINY)
    charged = []
    for method, config, setting, shots in (
        (Mask2FormerFineTuned, plain, "fsis", 2),
        (RefTFineTuned, referring, "fsis", 1),
        (RefTFineTuned, RefTConfig(**TINY, link_logits=True, episode_classes=4), "fsis", 1),
        (Mask2FormerFineTuned, plain, "gfsis", 1),
        (RefTFineTuned, RefTConfig(**TINY, imprint=True, tokens="mean", mode="add"), "gfsis", 1),
    ):
        run = context(folder)
        segmenter = fitted(method, config, few_shot(dataset, setting, shots), run)
        charged.append({name for name in run.timing_table() if name.startswith("cached:mask2former-base")})
        assert segmenter.parameters > 500_000
        assert all(np.isfinite(d.score) for found in segmenter.predict(images_of(dataset)) for d in found)
    assert all(names == {"cached:mask2former-base"} for names in charged)
    assert len(list((folder / "cache").glob("**/mask2former-base/*/"))) == 1


def test_control_has_the_same_weights_and_other_references(dataset, tmp_path):
    config = RefTConfig(**TINY, episode_classes=4)
    own = fitted(RefTFineTuned, config, few_shot(dataset, "fsis"), context(tmp_path / "run"))
    other = fitted(OtherSupports, config, few_shot(dataset, "fsis"), context(tmp_path / "run"))
    assert all(torch.equal(a, b) for a, b in zip(own.model.parameters(), other.model.parameters(), strict=True))
    assert own.references.centres[0].shape == other.references.centres[0].shape == (4, 64)
    assert not torch.allclose(own.references.centres[0], other.references.centres[0])
    assert own.references.tokens.shape == other.references.tokens.shape
    assert not torch.equal(logits_of(own, images_of(dataset)), logits_of(other, images_of(dataset)))


def test_test_images_pass_the_backbone_once(dataset, tmp_path):
    segmenter = fitted(RefTFineTuned, RefTConfig(**TINY), few_shot(dataset, "fsis"), context(tmp_path / "run"))
    passed = []
    segmenter.model.network.backbone.register_forward_hook(lambda _m, inputs, _o: passed.append(len(inputs[0])))
    segmenter.predict(images_of(dataset, 5))
    assert sum(passed) == 5


@pytest.mark.parametrize(
    ("method", "setting", "settings"),
    [
        (Mask2FormerFineTuned, "fsis", {}),
        (RefTFineTuned, "fsis", {}),
        (RefTFineTuned, "ifsis", {**INCREMENTAL, "distillation": True}),
    ],
)
def test_a_saved_model_is_judged_again_without_training(dataset, tmp_path, method, setting, settings):
    config = method.Config(**TINY, **settings)
    run = context(tmp_path / "run", wanted_artifacts=frozenset({"model"}))
    trained = fitted(method, config, few_shot(dataset, setting), run)
    saved = run.artifact("model.safetensors")
    judging = context(tmp_path / "again", weights=saved)
    loaded = fitted(method, config, few_shot(dataset, setting), judging)
    assert torch.equal(logits_of(trained, images_of(dataset)), logits_of(loaded, images_of(dataset)))
    assert not list((tmp_path / "again").glob("cache/**/model.safetensors"))


class TestRows:
    def settings(self, name, task, preset="embedded"):
        return get_registry().method(name).presets[preset].resolve({"task": task, "dataset": "synth-fsis"})

    def test_plain_reft_has_episodes_in_fsis_only_and_no_extension(self):
        for preset in ("embedded", "paper"):
            found = {task: RefTConfig(**self.settings("reft", task, preset)) for task in TASKS}
            assert found["fsis"].episode_classes > 0 == found["gfsis"].episode_classes
            assert found["ifsis"].episode_classes == 0
            assert not any(config.link_logits for config in found.values())
            assert (found["ifsis"].head, found["ifsis"].distillation) == ("cosine", True)
            assert not found["fsis"].distillation

    def test_every_row_starts_from_the_same_settings(self):
        for task in TASKS:
            plain = Mask2FormerConfig(**self.settings("mask2former-ft", task))
            reft = RefTConfig(**self.settings("reft", task))
            assert all(getattr(reft, name) == value for name, value in vars(plain).items())

    def test_roles(self):
        registry = get_registry()
        roles = {name: registry.method(name).role for name in registry.methods if "reft" in name}
        assert roles == {
            "reft": "method",
            "reft-link-logits": "extension",
            "reft-other-supports": "control",
            "reft-no-distillation": "ablation",
        }
        for task in TASKS.values():
            assert registry.method(task.reference).role == "baseline"


def run_status(cli, *arguments, timeout=900):
    done = cli("run", *arguments, "--no-reference", timeout=timeout)
    assert done.code == 0, done.err + done.out
    (path,) = cli.folder.glob("runs/**/result.json")
    return json.loads(path.read_text())


@pytest.mark.real_data
def test_the_real_sample_end_to_end(cli, real_data):
    root = real_data / "coco_tiny"
    result = run_status(
        cli, "--task", "fsis", "--method", "reft", "--dataset", "coco", "--data-root", root, "--max-steps", "3"
    )
    assert result["status"] == "truncated"
    log = next(cli.folder.glob("runs/**/log.txt")).read_text()
    assert "30 of its 100 images became the test part" in log
    assert "is left out" in log
    assert next(cli.folder.glob("runs/**/detections.png")).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.real_data
def test_two_steps_at_full_size_on_the_real_sample(cli, real_data):
    """Two images of 256 px a step instead of sixteen of 1024; network, losses and stages are the paper preset's."""
    small = ["image_size=256", "support_size=128", "short_side=256", "long_side=320", "batch_size=2"]
    small += ["tune_batch_size=2", "support_classes=4", "support_shots=1"]
    root = real_data / "coco_tiny"
    result = run_status(
        cli,
        *("--task", "fsis", "--method", "reft", "--preset", "paper", "--dataset", "coco", "--data-root", root),
        *("--max-steps", "2", "--set", "task.shots=1"),
        *(part for setting in small for part in ("--set", setting)),
    )
    assert result["status"] == "truncated"
    assert result["parameters"] > 44_000_000
