"""The task from end to end: what a method sees, what is judged, files that are judged again, both layouts of data."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import torch
from PIL import Image
from support import context, write_class_folders

from benchsuite.core import Outcome
from benchsuite.core.errors import ConfigError, DataError, Incompatible, InvalidPrediction
from benchsuite.datasets.image_folders.reader import load_imagenet
from benchsuite.datasets.small_images.reader import load_digits
from benchsuite.tasks.mixed_precision_quantization.contract import (
    QuantizationProtocol,
    QuantizedInput,
    QuantizedModel,
    QuantizedWeight,
    Quantizer,
)
from benchsuite.tasks.mixed_precision_quantization.networks import build_network
from benchsuite.tasks.mixed_precision_quantization.packed import quantized_network, scalars_of
from benchsuite.tasks.mixed_precision_quantization.pictures import draw_front
from benchsuite.tasks.mixed_precision_quantization.sources import crop_flip, parts_of, resized_crop
from benchsuite.tasks.mixed_precision_quantization.task import MixedPrecisionQuantization, budget_of
from benchsuite.tasks.mixed_precision_quantization.teachers import full_precision

FAST: dict[str, Any] = {"teacher_epochs": 3, "calibration": 64, "latency_repeats": 2, "warm_ups": 0}


class Rounded(Quantizer):
    """Rounds weights to evenly spaced levels; keeps what it was shown."""

    Config = dict
    name = "rounded"
    seen: Any = None

    def __init__(self, bits: int = 2, input_bits: int = 0, own: bool = True) -> None:
        self.bits, self.input_bits, self.own = bits, input_bits, own

    def quantize(self, model: Any, data: Any, budget: Any, ctx: Any) -> QuantizedModel:
        self.seen = (model, data, budget)
        network = model.build()
        weights, inputs = {}, {}
        for layer in model.layers:
            values = network.get_submodule(layer.name).weight.detach().numpy()
            top = 2**self.bits - 1
            scale = np.float32(2 * np.abs(values).max() / top)
            codes = np.clip(np.round(values / scale + top / 2), 0, top).astype(np.uint8)
            weights[layer.name] = QuantizedWeight(
                self.bits, codes, np.array(scale), np.array(-scale * top / 2, np.float32)
            )
            bits = self.input_bits or budget.input_bits[layer.name]
            span = layer.largest - min(layer.least, 0)
            step = float(np.float32(span / (2**bits - 1)))
            inputs[layer.name] = QuantizedInput(bits, step, min(round(-min(layer.least, 0) / step), 2**bits - 1))
        found = QuantizedModel(weights, inputs, scalars_of(network, list(weights)))
        if self.own:
            found.network = quantized_network(found, model.build())
        return found


class Run:
    """One evaluation."""

    def __init__(self, folder: Path, data: Any, method: Any = None, split: str = "test", **changes: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "artifacts").mkdir(exist_ok=True)
        self.data, self.method = {"train": data, "test": data}, method or Rounded()
        self.protocol = QuantizationProtocol(**(FAST | changes))
        self.folder = folder / "artifacts"
        self.task = MixedPrecisionQuantization()
        self.outcome: Outcome = self.task.evaluate(self.method, self.data, self.protocol, context(folder, split=split))


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_digits(None, 0)


@pytest.fixture(scope="module")
def run(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"), digits)


def test_every_metric_is_there_or_why_not(run: Run) -> None:
    outcome = run.outcome
    assert set(outcome.scores) == set(MixedPrecisionQuantization.metric_names())
    assert {name for name, value in outcome.scores.items() if value is None} == set(outcome.undefined)
    assert outcome.scores["weight_bits"] == 2
    assert outcome.scores["compression"] == 16
    assert outcome.scores["over_budget"] == 0
    assert outcome.counts["weights"] == 12736
    assert outcome.scores["packed_bytes"] == (run.folder / "predictions.bsq").stat().st_size
    assert outcome.scores["model_bytes"] == 12736 // 4 + 4 * outcome.counts["scalars"]


def test_the_gap_is_to_the_network_that_the_task_trained(run: Run, digits: Any) -> None:
    model, data, _ = run.method.seen
    _, judged = parts_of(digits, run.protocol, "test")
    with torch.no_grad():
        logits = model.build()(judged.batches.prepared(range(len(judged.names))))
    full = float((logits.argmax(dim=1).numpy() == judged.labels).mean())
    top1 = run.outcome.scores["top1"]
    assert top1 is not None
    assert run.outcome.scores["gap"] == pytest.approx(full - top1)
    assert len(judged.labels) == 500
    assert len(data) == 1297


def test_the_file_of_a_run_gives_its_scores_again(run: Run) -> None:
    again = run.task.score(run.folder / "predictions.bsq", run.data, run.protocol)
    assert set(again.scores) == set(run.outcome.scores)
    for name, value in again.scores.items():
        assert value is None or value == run.outcome.scores[name]
    assert set(again.undefined) == {"gap", "latency_int8_ms", "latency_fp32_ms"}


def test_files_that_are_no_networks_are_refused(run: Run, tmp_path: Path) -> None:
    content = (run.folder / "predictions.bsq").read_bytes()
    for damaged in (
        b"",
        b"picture,first\n",
        content[:-40],
        content[:100] + b"\0" + content[101:],
        b"\x89PNG" + content,
    ):
        path = tmp_path / "other.bsq"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"other\.bsq: no packed network"):
            run.task.score(path, run.data, run.protocol)
    other = QuantizationProtocol(**FAST, model="mlp-narrow")
    with pytest.raises(DataError, match="does not fit the network"):
        run.task.score(run.folder / "predictions.bsq", run.data, other)
    with pytest.raises(DataError, match="cannot be read"):
        run.task.score(tmp_path, run.data, run.protocol)


def test_hidden_answers_change_scores_and_nothing_else(run: Run, digits: Any, tmp_path: Path) -> None:
    other = run.task.with_other_answers(run.data)["test"]
    assert np.array_equal(other.train_labels, digits.train_labels)
    changed = Run(tmp_path, other)
    assert (changed.folder / "predictions.bsq").read_bytes() == (run.folder / "predictions.bsq").read_bytes()
    assert changed.outcome.scores["top1"] != run.outcome.scores["top1"]


def test_methods_see_training_pictures_only(digits: Any, tmp_path: Path) -> None:
    found = Run(tmp_path, digits, split="val")
    _, data, _ = found.method.seen
    assert len(data) == 1297 - found.outcome.counts["test_pictures"]
    assert found.outcome.counts["test_pictures"] == 259
    _, judged = parts_of(digits, found.protocol, "val")
    assert all(name.startswith("train/") for name in judged.names)
    seen = {data.prepared([place]).numpy().tobytes() for place in range(len(data))}
    hidden = {judged.batches.prepared([place]).numpy().tobytes() for place in range(len(judged.names))}
    assert len(seen & hidden) <= 2  # but for pictures that the data set has twice


def test_rows_over_the_budget_are_told_apart(digits: Any, tmp_path: Path) -> None:
    wide = Run(tmp_path / "wide", digits, Rounded(bits=3))
    assert wide.outcome.scores["over_budget"] == 1
    seeing = Run(tmp_path / "seeing", digits, Rounded(input_bits=8))
    assert seeing.outcome.scores["over_budget"] == 6
    constraint = MixedPrecisionQuantization.ranking.constraint
    assert constraint is not None
    assert (constraint.metric, constraint.at_most) == ("over_budget", 0.0)


def test_eight_bits_are_timed_in_integer_kernels(digits: Any, tmp_path: Path, run: Run) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    found = Run(tmp_path, digits, Rounded(bits=4), activation_bits=8, weight_bits=4.0)
    latency = found.outcome.scores["latency_int8_ms"]
    assert latency is not None
    assert latency > 0
    assert {"what": "layers in QGemm", "value": 4} in found.outcome.tables["latency"]
    kinds = [node.op_type for node in onnx.load(str(found.folder / "network.onnx")).graph.node]
    assert kinds.count("QuantizeLinear") == 4
    assert run.outcome.scores["latency_int8_ms"] is None
    assert "integer kernels" in run.outcome.undefined["latency_int8_ms"]


def test_a_file_that_computes_something_else_than_the_method_is_refused(digits: Any, tmp_path: Path) -> None:
    class Lying(Rounded):
        def quantize(self, model: Any, data: Any, budget: Any, ctx: Any) -> QuantizedModel:
            found = super().quantize(model, data, budget, ctx)
            found.network = model.build()
            return found

    with pytest.raises(InvalidPrediction, match="off the method's own"):
        Run(tmp_path, digits, Lying())


def test_the_network_is_trained_once_for_a_seed(digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = QuantizationProtocol(**FAST)
    data, _ = parts_of(digits, protocol, "test")
    first = full_precision(data, protocol, context(tmp_path))
    monkeypatch.setattr("benchsuite.tasks.mixed_precision_quantization.teachers._train", None)
    again = full_precision(data, protocol, context(tmp_path))
    assert again.digest == first.digest
    assert first.build() is not first.build()
    with pytest.raises(TypeError):
        full_precision(data, protocol, context(tmp_path, seeds={"run": 1}))


def test_a_given_network_is_read_strictly(digits: Any, tmp_path: Path) -> None:
    state = build_network("mlp", 1, 10, 8).state_dict()
    data, _ = parts_of(digits, QuantizationProtocol(**FAST), "test")

    def read(name: str, content: Any) -> Any:
        path = tmp_path / name
        torch.save(content, path)
        return full_precision(data, QuantizationProtocol(**FAST, pretrained=str(path)), context(tmp_path))

    found = read("good.pt", {"state_dict": state})
    assert torch.equal(found.build().state_dict()["1.weight"], state["1.weight"])
    for name, content, message in (
        ("less.pt", {k: v for k, v in state.items() if k != "1.weight"}, "does not fit mlp"),
        ("list.pt", [1, 2], "no state dict"),
        ("numbers.pt", {"a": 3}, "no state dict"),
    ):
        with pytest.raises(DataError, match=message):
            read(name, content)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(print))
    for name, kind in (("evil.pt", DataError), ("none.pt", ConfigError)):
        protocol = QuantizationProtocol(**FAST, pretrained=str(tmp_path / name))
        with pytest.raises(kind):
            full_precision(data, protocol, context(tmp_path))


def test_pinned_layers_and_pictures_have_budgets_of_their_own(run: Run) -> None:
    model, _, budget = run.method.seen
    assert list(budget.input_bits.values()) == [8, 2, 2, 2]
    assert budget.pinned == {}
    with pytest.raises(ConfigError, match="a budget of 2 bits cannot be met: 1 in every layer and 8 in the first and"):
        budget_of(model.layers, QuantizationProtocol(pinned_bits=8))
    pinned = budget_of(model.layers, QuantizationProtocol(pinned_bits=8, fewest_bits=2, most_bits=4, weight_bits=3))
    assert list(pinned.pinned.values()) == [8, 8]
    assert pinned.candidates == (2, 3, 4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weight_bits": 0.5}, "no candidate"),
        ({"weight_bits": 33}, "to 32"),
        ({"model": "resnet19"}, "no network 'resnet19': choose mlp"),
        ({"fewest_bits": 4, "most_bits": 3}, "fewest <= most"),
        ({"most_bits": 9}, "fewest <= most"),
        ({"activation_bits": 0}, "activation_bits is 0"),
        ({"input_bits": 16}, "input_bits is 16"),
        ({"pinned_bits": 12}, "pinned_bits is 12"),
        ({"size": 0}, "size must be"),
        ({"crop": 0.0}, "crop must be"),
        ({"teacher_batch": 1}, "batch norms"),
    ],
)
def test_protocols_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        QuantizationProtocol(**settings)


@pytest.mark.parametrize(
    ("preset", "dataset", "expected"),
    [
        ("embedded", "mnist-5k", {}),
        ("paper", "cifar10", {"model": "resnet20", "size": 32, "augment": "crop-flip", "activation_bits": 32}),
        (
            "paper",
            "imagenet",
            {"model": "resnet18", "size": 224, "weight_bits": 3.61, "pinned_bits": 8, "input_bits": 8},
        ),
    ],
)
def test_presets(preset: str, dataset: str, expected: dict[str, Any]) -> None:
    facts = {"task": MixedPrecisionQuantization.name, "dataset": dataset}
    found = QuantizationProtocol(**MixedPrecisionQuantization.presets[preset].resolve(facts))
    assert {name: getattr(found, name) for name in expected} == expected


def test_cropping_and_mirroring() -> None:
    pixels = np.arange(1, 2 * 6 * 6 * 3 + 1, dtype=np.uint8).reshape(2, 6, 6, 3)
    generator = torch.Generator().manual_seed(0)
    found = np.concatenate([crop_flip(pixels, generator) for _ in range(60)])
    padded = np.pad(pixels, ((0, 0), (4, 4), (4, 4), (0, 0)))
    allowed = {
        padded[n, y : y + 6, x : x + 6][:, ::step].tobytes()
        for n in range(2)
        for y in range(9)
        for x in range(9)
        for step in (1, -1)
    }
    assert {one.tobytes() for one in found} <= allowed
    assert len({one.tobytes() for one in found}) > 40
    straight = {padded[n, y : y + 6, x : x + 6].tobytes() for n in range(2) for y in range(9) for x in range(9)}
    mirrored = sum(one.any() and one.tobytes() not in straight for one in found)
    assert 30 < mirrored < 90


def test_parts_of_pictures_have_the_size_and_the_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    spans, mirrored = [], 0
    for _ in range(80):
        found = resized_crop(ramp, 16, generator)
        assert found.shape == (16, 16, 3)
        spans.append(abs(int(found[0, -1, 0]) - int(found[0, 0, 0])))
        mirrored += int(found[0, -1, 0]) < int(found[0, 0, 0])
    assert 20 < mirrored < 60
    assert max(spans) - min(spans) > 40
    assert resized_crop(np.zeros((3, 400, 3), np.uint8), 8, generator).shape == (8, 8, 3)


def test_class_folders_from_end_to_end(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "data", (20, 26), {"train": 6, "val": 3})
    data = load_imagenet(tmp_path / "data", 0)
    found = Run(tmp_path, data, model="cnn", size=16, crop=0.875, augment="resized-crop", teacher_batch=4)
    assert found.outcome.counts["test_pictures"] == 6
    again = found.task.score(found.folder / "predictions.bsq", found.data, found.protocol)
    assert again.scores["top1"] == found.outcome.scores["top1"]
    changed = found.task.with_other_answers(found.data)["test"]
    assert (changed.test.labels != data.test.labels).all()


def test_other_data_are_refused() -> None:
    with pytest.raises(Incompatible, match="no labelled pictures"):
        parts_of(object(), QuantizationProtocol(), "test")


def test_a_picture_is_drawn(run: Run) -> None:
    picture = np.asarray(Image.open(run.folder / "strategy.png"))
    assert min(picture.shape[:2]) > 150
    assert picture.std() > 10


def test_the_front_is_what_nothing_beats_in_both(tmp_path: Path) -> None:
    rows = [
        {"label": name, "bitops": bitops, "top1": top1}
        for name, bitops, top1 in (("d", 8.0, 0.9), ("a", 1.0, 0.5), ("b", 2.0, 0.4), ("c", 2.0, 0.8), ("e", 9.0, 0.9))
    ]
    assert draw_front(tmp_path / "front.png", rows) == ["a", "c", "d"]
    assert np.asarray(Image.open(tmp_path / "front.png")).std() > 5
