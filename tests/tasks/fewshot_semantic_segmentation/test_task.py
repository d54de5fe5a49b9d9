"""The task: what a method sees, how it is judged, files of predictions, pictures, and data that do not fit."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("hotcoco")

import torch
from PIL import Image

from benchsuite.core.errors import ConfigError, DataError, InvalidPrediction, UserError
from benchsuite.datasets.class_masks import GENERATED
from benchsuite.datasets.class_masks import generated as twin
from benchsuite.tasks.fewshot_semantic_segmentation import backbones, episodes
from benchsuite.tasks.fewshot_semantic_segmentation import task as fss
from benchsuite.tasks.fewshot_semantic_segmentation.contract import (
    Episode,
    FewShotMasksProtocol,
    FewShotSegmenter,
    Picture,
    Segmenter,
    TrainingData,
)
from benchsuite.tasks.fewshot_semantic_segmentation.judge import judge, predict, read_predictions, write_predictions
from benchsuite.tasks.fewshot_semantic_segmentation.loading import Loader, nearest, squashed
from benchsuite.tasks.fewshot_semantic_segmentation.networks import TinyResNet, build_backbone, normalised

SMALL = {
    **GENERATED,
    "train_scenes": 60,
    "test_scenes_per_class": 3,
    "pool_train_per_class": 1,
    "pool_test_per_class": 1,
}
PROTOCOL = FewShotMasksProtocol(episodes=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("twin")
    twin.write_dataset(found, SMALL, 0)
    return found


@pytest.fixture(scope="module")
def data(folder: Path) -> Any:
    return twin.read_generated(folder, "synth-fss")


class Context:
    """What the task needs of a run."""

    device, weights, max_steps, split = "cpu", None, None, "test"

    def __init__(self, folder: Path, fold: int = 0) -> None:
        self.folder, self.fold, self.log, self.built = folder, fold, logging.getLogger("test"), []

    def seed_for(self, axis: str, name: str) -> int:
        return 5

    def draw_of(self, axis: str) -> int:
        return {"fold": self.fold, "base": 0}[axis]

    def phase(self, name: str) -> Any:
        import contextlib

        return contextlib.nullcontext()

    def artifact(self, name: str) -> Path:
        return self.folder / name

    def resumable(self, name: str, total: int, parts: Any, description: str = "") -> range:
        return range(2)

    def cached(self, name: str, inputs: Any, build: Callable[[Path], None]) -> Path:
        self.built.append((name, inputs))
        place = self.folder / f"cached-{len(self.built)}"
        place.mkdir()
        build(place)
        return place


class Oracle(Segmenter):
    """Knows the answers of the test, by the key of the query and the class of the supports."""

    parameters = 7

    def __init__(self, answer: Callable[[Episode], np.ndarray]) -> None:
        self.answer, self.seen = answer, []

    def predict(self, episodes: Sequence[Episode]) -> list[np.ndarray]:
        self.seen += episodes
        return [self.answer(episode) for episode in episodes]


class Method(FewShotSegmenter):
    def __init__(self, model: Segmenter) -> None:
        super().__init__(None)
        self.model, self.data = model, None

    def fit(self, data: TrainingData, ctx: Any) -> Segmenter:
        self.data = data
        return self.model


def evaluated(data: Any, folder: Path, answer: Callable[[Episode], np.ndarray], **protocol: Any) -> tuple[Any, Method]:
    method = Method(Oracle(answer))
    outcome = fss.FewShotSemanticSegmentation().evaluate(
        method, {"train": data, "test": data}, replace(PROTOCOL, **protocol), Context(folder)
    )
    return outcome, method


def everything(episode: Episode) -> np.ndarray:
    return np.ones(episode.output_size, dtype=bool)


def by_colour(episode: Episode) -> np.ndarray:
    """Segment by the mean colour of the support's foreground: a method that uses its supports."""
    support, mask = episode.supports[0].pixels.astype(float), episode.support_masks[0]
    colours = [support[where].mean(axis=0) for where in (mask, ~mask)]
    far = [np.abs(episode.query.pixels - colour).sum(axis=2) for colour in colours]
    return far[0] < far[1]


# --- what is judged -------------------------------------------------------------------------------------


def test_scores_tables_and_pictures_of_a_run(data: Any, tmp_path: Path) -> None:
    outcome, method = evaluated(data, tmp_path, everything)
    assert set(outcome.scores) == set(fss.FewShotSemanticSegmentation.metric_names())
    lists = episodes.fold_lists(data, 0, 1, "test")
    draws = episodes.test_draws(lists, 1, 20)
    sums = {c: np.zeros(2) for c in lists.tested}
    for draw in draws:
        target = data.mask(draw.query, draw.label)[0]
        sums[draw.label] += (target.sum(), target.size)
    expected = np.mean([i / max(u, 1) for i, u in sums.values()])
    assert outcome.scores["miou"] == pytest.approx(expected)
    assert outcome.scores["miou_wrong_support"] == pytest.approx(expected)  # who ignores the supports
    assert outcome.scores["support_margin"] == pytest.approx(-expected / 2)
    assert outcome.parameters == 7
    assert outcome.tables["folds"][0]["miou"] == outcome.scores["miou"]
    assert np.mean([row["iou"] for row in outcome.tables["classes"]]) == pytest.approx(expected)
    assert sum(row["episodes"] for row in outcome.tables["classes"]) == 20
    assert outcome.tables["backbone"][0]["pool_accuracy"] == outcome.scores["pool_accuracy"]
    with Image.open(tmp_path / "episodes.png") as sheet:
        assert sheet.width > 4 * 128
    assert method.data is not None
    assert method.data.score is None


def test_the_control_shows_supports_of_another_class(data: Any, tmp_path: Path) -> None:
    outcome, method = evaluated(data, tmp_path, by_colour)
    assert outcome.scores["miou_wrong_support"] < outcome.scores["miou"]
    seen = method.model.seen  # type: ignore[attr-defined]
    assert len(seen) == 40
    right, wrong = seen[:20], seen[20:]
    assert [e.query.key for e in right] == [e.query.key for e in wrong]
    draws = episodes.other_supports(*_draws(data))
    for draw, episode in zip(draws, wrong, strict=True):
        assert np.array_equal(episode.support_masks[0], data.mask(draw.supports[0], draw.shown)[0])


def _draws(data: Any, shots: int = 1) -> tuple[Any, Any]:
    lists = episodes.fold_lists(data, 0, shots, "test")
    return lists, episodes.test_draws(lists, shots, 20)


def test_a_test_episode_tells_neither_class_nor_answer(data: Any, tmp_path: Path) -> None:
    _, method = evaluated(data, tmp_path, everything, shots=1)
    episode = method.model.seen[0]  # type: ignore[attr-defined]
    assert not hasattr(episode, "label")
    assert not hasattr(episode, "query_mask")
    assert episode.support_masks.shape == (1, 64, 64)


def test_training_episodes_are_of_other_classes_and_labelled(data: Any, tmp_path: Path) -> None:
    _, method = evaluated(data, tmp_path, everything)
    training = method.data
    assert training is not None
    assert not set(training.classes) & set(range(5))
    episode = training.episode(3)
    assert episode.label in training.classes
    assert np.array_equal(episode.query_mask, data.mask(episode.query.key, episode.label)[0])
    assert [e.query.key for e in training.batch(2, 3)] == [training.episode(n).query.key for n in (2, 3, 4)]


def test_selection_on_the_test_episodes_is_an_option(data: Any, tmp_path: Path) -> None:
    outcome, method = evaluated(data, tmp_path, everything, selection="test")
    assert method.data is not None
    assert method.data.score is not None
    assert method.data.score(Oracle(everything)) == outcome.scores["miou"]


def test_ignored_pixels_of_the_query_count_nowhere(data: Any) -> None:
    lists, draws = _draws(data)
    loader = Loader(data, 64, False)
    truth = loader.truth(draws[0])
    real = data.mask

    class WithBoundary(type(data)):  # type: ignore[misc]
        def mask(self, image: str, label: int) -> Any:
            target, _ = real(image, label)
            return target, ~target  # all but the class is ignored

    masked = WithBoundary(**{f: getattr(data, f) for f in data.__dataclass_fields__})
    everywhere = [np.ones((64, 64), dtype=bool)] * len(draws)
    found = judge(draws, everywhere, Loader(masked, 64, False), lists.tested)
    assert all(value in (0.0, 1.0) for value in found.per_class.values())
    assert truth.target.any()


def test_own_size_is_an_option(data: Any, tmp_path: Path) -> None:
    lists, draws = _draws(data)
    episode = Loader(data, 97, True).episode(draws[0])
    assert episode.query.pixels.shape == (97, 97, 3)
    assert episode.support_masks.shape == (1, 97, 97)
    assert episode.output_size == (64, 64)
    assert Loader(data, 97, True).truth(draws[0]).target.shape == (64, 64)
    assert Loader(data, 97, False).episode(draws[0]).output_size == (97, 97)
    assert lists.tested


@pytest.mark.parametrize("size", [33, 97, 224, 473])
@pytest.mark.parametrize("height", [60, 333, 500])
def test_masks_are_resized_as_torch_does(size: int, height: int) -> None:
    mask = np.random.default_rng(size).random((height, 375)) > 0.5
    expected = torch.nn.functional.interpolate(torch.from_numpy(mask).float()[None, None], (size, size), mode="nearest")
    assert np.array_equal(nearest(mask, size), expected[0, 0].numpy() > 0)


def test_pictures_are_squashed_as_pil_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((33, 33), Image.Resampling.BILINEAR))
    assert np.array_equal(squashed(pixels, 33), expected)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda e: np.ones((64, 64)), "float64"),
        (lambda e: np.ones((64, 63), dtype=bool), r"\(64, 63\)"),
        (lambda e: [[True]], "list"),
    ],
)
def test_masks_of_a_method_are_checked(data: Any, answer: Any, words: str) -> None:
    _, draws = _draws(data)
    with pytest.raises(InvalidPrediction, match=words):
        predict(Oracle(answer), draws, Loader(data, 64, False))


def test_a_missing_mask_is_told(data: Any) -> None:
    _, draws = _draws(data)
    model = Oracle(everything)
    model.predict = lambda episodes: []  # type: ignore[method-assign]
    with pytest.raises(InvalidPrediction, match="0 masks for 8 episodes"):
        predict(model, draws, Loader(data, 64, False))


def test_changed_answers_leave_what_a_method_sees(data: Any) -> None:
    task = fss.FewShotSemanticSegmentation()
    other = task.with_other_answers({"train": data, "test": data})["test"]
    _, draws = _draws(data)
    one, two = (Loader(found, 64, False) for found in (data, other))
    assert np.array_equal(one.episode(draws[0]).support_masks, two.episode(draws[0]).support_masks)
    assert np.array_equal(one.labelled(draws[0]).query_mask, two.labelled(draws[0]).query_mask)
    assert np.array_equal(one.truth(draws[0]).target, ~two.truth(draws[0]).target)


# --- predictions made elsewhere -------------------------------------------------------------------------


def test_predictions_of_a_run_are_scored_the_same(data: Any, tmp_path: Path) -> None:
    outcome, _ = evaluated(data, tmp_path, by_colour)
    task = fss.FewShotSemanticSegmentation()
    scored = task.score(tmp_path / "predictions.json", {"train": data, "test": data}, PROTOCOL)
    assert scored.scores["miou"] == outcome.scores["miou"]
    assert scored.scores["fb_iou"] == outcome.scores["fb_iou"]
    assert scored.undefined["miou_wrong_support"] == "predicted elsewhere"
    entries = json.loads((tmp_path / "predictions.json").read_text())
    (tmp_path / "predictions.json").write_text(json.dumps(entries[::-1]))  # in any order
    assert task.score(tmp_path / "predictions.json", {"test": data}, PROTOCOL).scores == scored.scores


def test_scores_of_several_folds_are_averaged(data: Any, tmp_path: Path) -> None:
    entries, expected = [], []
    for fold in (0, 2):
        place = tmp_path / str(fold)
        place.mkdir()
        method = Method(Oracle(by_colour))
        outcome = fss.FewShotSemanticSegmentation().evaluate(
            method, {"train": data, "test": data}, PROTOCOL, Context(place, fold)
        )
        expected.append(outcome.scores["miou"])
        entries += json.loads((place / "predictions.json").read_text())
    (tmp_path / "both.json").write_text(json.dumps(entries))
    found = fss.FewShotSemanticSegmentation().score(tmp_path / "both.json", {"test": data}, PROTOCOL)
    assert found.scores["miou"] == pytest.approx(np.mean(expected))
    assert [row["fold"] for row in found.tables["folds"]] == [0, 2]


def _set(key: str, value: Any) -> Callable[[list[dict[str, Any]]], Any]:
    def change(entries: list[dict[str, Any]]) -> None:
        entries[3][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("fold", 4), "there is no fold 4"),
        (_set("episode", 20), "no episode 20"),
        (_set("episode", 2), "episode 3 asks for|asks for|twice"),
        (_set("query", "elsewhere"), "asks for"),
        (_set("segmentation", [[1, 2]]), "give a run-length code"),
        (_set("segmentation", {"size": [63, 64], "counts": [63 * 64]}), r"has the size \[63, 64\]"),
        (_set("episode", "a"), "write a whole number"),
        (lambda entries: entries.pop(), "lacks 1 of its 20 episodes, e.g. 19"),
        (lambda entries: entries.append(dict(entries[0])), "twice"),
        (lambda entries: entries.clear(), "needs a list"),
    ],
)
def test_broken_predictions_are_told_in_one_line(
    data: Any, tmp_path: Path, change: Callable[[list[dict[str, Any]]], Any], words: str
) -> None:
    _, draws = _draws(data)
    path = tmp_path / "predictions.json"
    write_predictions(path, 0, draws, [np.eye(64, dtype=bool)] * 20)
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=words) as error:
        fss.FewShotSemanticSegmentation().score(path, {"test": data}, PROTOCOL)
    assert "\n" not in str(error.value)


def test_predictions_that_are_no_json_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[{")
    with pytest.raises(DataError, match="not a file of predicted masks"):
        read_predictions(tmp_path / "x.json", range(4), lambda fold: ([], []))


# --- the backbone ---------------------------------------------------------------------------------------


def test_backbone_is_trained_once_a_base_seed_on_the_pool_alone(data: Any, tmp_path: Path) -> None:
    ctx = Context(tmp_path)
    backbone, facts = backbones.load_backbone(PROTOCOL, data.pool, ctx)  # type: ignore[arg-type]
    (name, inputs), *_ = ctx.built
    assert (name, inputs["seed"]) == ("fss-backbone", 5)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert facts["pool_accuracy"] == backbones.pool_accuracy(backbone, *data.pool.read(data.pool.test))  # type: ignore[arg-type]
    assert facts["weights"] == "pre-trained on 40 categories"


def test_pre_training_learns(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, labels = data.pool.read(data.pool.train)
    torch.manual_seed(0)
    model = TinyResNet()
    before = _pool_loss(model, pictures, labels)
    ctx = Context(tmp_path)
    ctx.resumable = lambda name, total, parts, description="": range(25)  # type: ignore[method-assign,assignment]
    backbones._pre_train(model, pictures, labels, 0, ctx)  # type: ignore[arg-type]
    model.freeze()
    for found in model.maps(normalised(torch.from_numpy(pictures))):
        assert found.pow(2).mean().item() == pytest.approx(1, rel=1e-4)
    assert _pool_loss(model, pictures, labels) < before - 0.3


def _pool_loss(model: TinyResNet, pictures: np.ndarray, labels: np.ndarray) -> float:
    torch.nn.Module.train(model, True)
    with torch.no_grad():
        logits = model.logits(normalised(torch.from_numpy(pictures)))
    return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)))


def test_tiny_backbone_needs_a_pool(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pool"):
        backbones.load_backbone(PROTOCOL, None, Context(tmp_path))  # type: ignore[arg-type]


def test_a_full_run_needs_weights_and_a_truncated_one_says_that_it_has_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    protocol = replace(PROTOCOL, backbone="resnet50", size=97)
    with pytest.raises(ConfigError, match="needs its ImageNet weights") as error:
        backbones.load_backbone(protocol, None, Context(tmp_path))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    ctx = Context(tmp_path)
    ctx.max_steps = 2
    backbones.load_backbone(protocol, None, ctx)  # type: ignore[arg-type]
    assert "random weights" in caplog.text


def test_weights_of_a_backbone_come_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {n: v.clone() for n, v in build_backbone("resnet50").state_dict().items()}
    torch.save(state, tmp_path / "r50.pth")
    protocol = replace(PROTOCOL, backbone="resnet50", size=97, backbone_file=str(tmp_path / "r50.pth"))
    backbone, facts = backbones.load_backbone(protocol, None, Context(tmp_path))  # type: ignore[arg-type]
    assert torch.equal(backbone.state_dict()["layer3.2.conv2.weight"], state["layer3.2.conv2.weight"])
    assert len(facts["sha256"]) == 64
    del state["fc.bias"]
    torch.save(state, tmp_path / "r50.pth")
    with pytest.raises(ConfigError, match=r"fc\.bias"):
        backbones.load_backbone(protocol, None, Context(tmp_path))  # type: ignore[arg-type]
    (tmp_path / "r50.pth").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="no plain state dict"):
        backbones.load_backbone(protocol, None, Context(tmp_path))  # type: ignore[arg-type]


def test_maps_of_a_picture_do_not_depend_on_its_neighbours() -> None:
    features = backbones.Features(TinyResNet().freeze())
    pictures = [
        Picture(str(n), np.random.default_rng(n).integers(0, 256, (64, 64, 3)).astype(np.uint8)) for n in range(3)
    ]
    together = features(pictures)
    alone = backbones.Features(features.backbone)([pictures[1]])
    assert all(torch.equal(one[1], other[0]) for one, other in zip(together, alone, strict=True))
    again = features([pictures[2], pictures[2], pictures[0]])  # kept, and one asked for twice
    assert torch.equal(again[0][0], together[0][2])
    assert torch.equal(again[0][1], together[0][2])


def test_pictures_are_normalised_as_for_imagenet() -> None:
    grey = normalised(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8))
    assert grey[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shots": 2}, "one of 1, 5"),
        ({"episodes": 0}, "episodes"),
        ({"size": 32}, "size"),
        ({"backbone_file": "x"}, "leave backbone_file out"),
    ],
)
def test_protocols_that_make_no_sense_are_told(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FewShotMasksProtocol(**settings)


def test_label_maps_have_no_polygons(data: Any) -> None:
    with pytest.raises(ConfigError, match="no polygons"):
        fss.as_class_masks(data, replace(PROTOCOL, masks="polygon-fill"))


def test_published_protocol_is_that_of_the_official_code() -> None:
    paper = fss.FewShotSemanticSegmentation.presets["paper"]
    assert paper.resolve({"dataset": "pascal-5i"}) == {"size": 473, "episodes": 1000, "backbone": "resnet50"}
    assert paper.resolve({"dataset": "coco"})["masks"] == "polygon-fill"
