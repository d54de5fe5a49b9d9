"""Brevitas and torchao: what they compute is what the task reads from their codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch
from support import Killed, context

from benchsuite.core.errors import ConfigError
from benchsuite.datasets.small_images.reader import load_digits
from benchsuite.tasks.mixed_precision_quantization.contract import QuantizationProtocol
from benchsuite.tasks.mixed_precision_quantization.packed import checked, dequantized_weight, quantized_network
from benchsuite.tasks.mixed_precision_quantization.sources import parts_of
from benchsuite.tasks.mixed_precision_quantization.task import budget_of
from benchsuite.tasks.mixed_precision_quantization.teachers import full_precision
from benchsuite_baselines.quantization.config import BrevitasConfig, FullPrecisionConfig, TorchaoConfig
from benchsuite_baselines.quantization.method import BrevitasUniform, KeepFullPrecision, Torchao


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("baselines")
    found = {}
    for model in ("mlp", "cnn"):
        protocol = QuantizationProtocol(model=model, teacher_epochs=2 if model == "cnn" else 6, calibration=64)
        data, _ = parts_of(load_digits(None, 0), protocol, "test")
        network = full_precision(data, protocol, context(folder))
        found[model] = (network, data, budget_of(network.layers, protocol))
    return found


def quantized(method: Any, made: Any, folder: Path, model: str = "mlp") -> Any:
    network, data, budget = made[model]
    given = method.quantize(network, data, budget, context(folder))
    return checked(given, [layer.name for layer in network.layers], network.build())


def test_full_precision_is_the_network_itself(made: Any, tmp_path: Path) -> None:
    network, data, _ = made["mlp"]
    given = quantized(KeepFullPrecision(FullPrecisionConfig()), made, tmp_path)
    pictures = data.prepared(range(50))
    assert torch.equal(quantized_network(given, network.build())(pictures), network.build()(pictures))
    assert {weight.bits for weight in given.weights.values()} == {32}


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_codes_of_brevitas_compute_what_brevitas_computes(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, granularity: Any
) -> None:
    pytest.importorskip("brevitas")
    kept: list[Any] = []
    import benchsuite_baselines.quantization.method as module

    learn = module.learn
    monkeypatch.setattr(
        module, "learn", lambda network, *rest, **more: kept.append(network) or learn(network, *rest, **more)
    )
    config = BrevitasConfig(steps=30, collect_steps=10, granularity=granularity)
    given = quantized(BrevitasUniform(config), made, tmp_path, model)
    assert {weight.bits for weight in given.weights.values()} == {2}
    assert [seen.bits for seen in given.inputs.values()] == [8, *[2] * (len(given.inputs) - 1)]
    assert any(weight.codes.min() == 0 for weight in given.weights.values())  # the lowest code is used: not ternary
    network, data, _ = made[model]
    for name, weight in given.weights.items():
        own = kept[0].get_submodule(name).quant_weight().value
        assert torch.allclose(dequantized_weight(weight), own, atol=1e-6)
    pictures = data.prepared(range(100))
    with torch.no_grad():
        own, read = kept[0](pictures), quantized_network(given, network.build())(pictures)
    own = getattr(own, "value", own)
    same = (own - read).abs().amax(dim=1) <= 1e-4  # an input at the very border of two levels may fall to either side
    assert float(same.float().mean()) > 0.95


@pytest.mark.parametrize("library", ["brevitas", "torchao"])
def test_a_killed_training_goes_on(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    pytest.importorskip(library)
    from benchsuite.harness import context as harness

    network, data, budget = made["mlp"]
    settings: dict[str, Any] = {"steps": 30}
    if library == "brevitas":
        method: Any = BrevitasUniform(BrevitasConfig(collect_steps=10, **settings))
    else:
        method = Torchao(TorchaoConfig(training=True, **settings))
    whole = method.quantize(network, data, budget, context(tmp_path / "whole"))
    asked: list[Any] = []

    def killing(places: Any, generator: Any) -> Any:
        asked.append(places)
        if len(asked) == 20:
            raise Killed
        return data.augmented(places, generator)

    monkeypatch.setattr(harness.Checkpoint, "due", lambda self, step: True)
    watched = replace(data, augmented=killing)
    with pytest.raises(Killed):
        method.quantize(network, watched, budget, context(tmp_path / "killed"))
    again = method.quantize(network, watched, budget, context(tmp_path / "killed"))
    assert len(asked) == 20 + 30 - 19
    for name, weight in whole.weights.items():
        assert np.array_equal(again.weights[name].codes, weight.codes)
        assert np.array_equal(again.weights[name].scale, weight.scale)
    for name, seen in whole.inputs.items():
        assert np.array_equal(again.inputs[name].scale, seen.scale)
    assert again.tables == whole.tables


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_of_torchao_compute_what_torchao_computes(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: Any, training: bool
) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    kept: list[Any] = []
    quantize_ = torchao.quantize_
    monkeypatch.setattr(torchao, "quantize_", lambda network, c: kept.append(network) or quantize_(network, c))
    given = quantized(Torchao(TorchaoConfig(bits=bits, training=training, steps=5)), made, tmp_path)
    network, data, _ = made["mlp"]
    assert {weight.bits for weight in given.weights.values()} == {bits}
    assert all(weight.scale.shape == weight.codes.shape[:1] for weight in given.weights.values())
    pictures = data.prepared(range(100))
    with torch.no_grad():
        own, read = kept[-1].eval()(pictures), quantized_network(given, network.build())(pictures)
    assert torch.allclose(own, read, atol=1e-4)


def test_training_with_rounding_helps_four_bits_or_does_no_harm(made: Any, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    plain = quantized(Torchao(TorchaoConfig(bits=4)), made, tmp_path / "plain")
    trained = quantized(Torchao(TorchaoConfig(bits=4, training=True, epochs=1)), made, tmp_path / "trained")
    assert any(not np.array_equal(plain.weights[n].codes, trained.weights[n].codes) for n in plain.weights)


def test_torchao_leaves_convolutions_alone_and_says_so(
    made: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("torchao")
    given = quantized(Torchao(TorchaoConfig(bits=8)), made, tmp_path, "cnn")
    assert [weight.bits for weight in given.weights.values()] == [32] * 6 + [8]
    assert "6 convolutions stay at 32 bits" in caplog.text


def test_odd_settings_are_refused() -> None:
    for settings in ({"lr": 0.0}, {"batch_size": 1}, {"epochs": 0}, {"weight_decay": -1.0}):
        with pytest.raises(ConfigError):
            BrevitasConfig(**settings)  # type: ignore[arg-type]
