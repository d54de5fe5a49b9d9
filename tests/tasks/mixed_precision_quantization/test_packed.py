"""The packed file: bits in their places, its length, what comes back, and files that are refused in one line."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import forall

pytest.importorskip("torch")

import torch
from hypothesis import strategies as st

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.tasks.mixed_precision_quantization.contract import QuantizedInput, QuantizedModel, QuantizedWeight
from benchsuite.tasks.mixed_precision_quantization.networks import build_network, layers_of
from benchsuite.tasks.mixed_precision_quantization.packed import (
    checked,
    dequantized_weight,
    pack,
    pack_codes,
    quantized_input,
    quantized_network,
    scalars_in_full,
    scalars_of,
    unpack,
    unpack_codes,
)

BITS = (3, 32, 1, 8)


def network() -> Any:
    torch.manual_seed(0)
    return build_network("mlp-narrow", 1, 10, 4).eval()


def names() -> list[str]:
    return list(layers_of(network()))


def model(bits: tuple[int, ...] = BITS, channels: bool = False) -> QuantizedModel:
    """Return random codes for the narrow network."""
    rng, whole = np.random.default_rng(0), network()
    weights, inputs = {}, {}
    for number, (name, b) in enumerate(zip(names(), bits, strict=True)):
        shape = tuple(whole.get_submodule(name).weight.shape)
        if b == 32:
            weights[name] = QuantizedWeight(32, rng.normal(size=shape).astype(np.float32))
        else:
            size = shape[:1] if channels else ()
            scale, offset = (rng.uniform(0.1, 1, size=size).astype(np.float32) for _ in range(2))
            weights[name] = QuantizedWeight(
                b, rng.integers(0, 2**b, size=shape), np.asarray(scale), np.asarray(-offset)
            )
        inputs[name] = QuantizedInput(2, 0.5, 1) if number else QuantizedInput()
    return QuantizedModel(weights, inputs, scalars_of(whole, names()))


def written(folder: Path, content: bytes) -> Path:
    path = folder / "network.bsq"
    path.write_bytes(content)
    return path


def signed(content: bytes) -> bytes:
    """Return content with a checksum that is right: what somebody makes on purpose."""
    return content + hashlib.sha256(content).digest()


def with_header(content: bytes, change: Any) -> bytes:
    """Return a file whose header was changed on purpose."""
    (length,) = struct.unpack("<I", content[4:8])
    header = json.loads(content[8 : 8 + length])
    found = change(header)
    header = found if found in ([], {"layers": []}) else header
    text = json.dumps(header, separators=(",", ":")).encode()
    return signed(content[:4] + struct.pack("<I", len(text)) + text + content[8 + length : -32])


def test_the_lowest_bit_of_the_first_code_is_the_lowest_of_the_first_byte() -> None:
    assert pack_codes(np.array([1, 2, 3, 4]), 3) == bytes([0b11_010_001, 0b0000_100_0])
    assert pack_codes(np.array([[1, 0], [1, 1], [0, 0], [0, 1], [1, 1]]), 1) == bytes([0b10001101, 0b11])
    assert pack_codes(np.array([200, 7]), 8) == bytes([200, 7])


def test_codes_come_back_and_take_so_many_bytes() -> None:
    def check(case: tuple[int, list[int]]) -> None:
        bits, values = case
        codes = np.array(values) % 2**bits
        content = pack_codes(codes, bits)
        assert len(content) == -(-len(codes) * bits // 8)
        assert np.array_equal(unpack_codes(content, bits, (len(codes),)), codes)

    forall(200, st.tuples(st.integers(1, 8), st.lists(st.integers(0, 255), min_size=1, max_size=60)), check)


@pytest.mark.parametrize("channels", [False, True])
def test_a_file_has_its_documented_length_and_comes_back(tmp_path: Path, channels: bool) -> None:
    given = model(channels=channels)
    content = pack(checked(given, names(), network()), names())
    (length,) = struct.unpack("<I", content[4:8])
    codes = sum(-(-w.codes.size * w.bits // 8) for w in given.weights.values())
    assert len(content) == 8 + length + codes + 4 * scalars_in_full(given) + 32
    read = unpack(written(tmp_path, content), names(), network())
    assert read.inputs == dict(given.inputs)
    for name, weight in given.weights.items():
        assert read.weights[name].bits == weight.bits
        assert np.array_equal(read.weights[name].codes, weight.codes)
        assert torch.equal(dequantized_weight(read.weights[name]), dequantized_weight(weight))
    assert all(np.array_equal(read.scalars[name], value) for name, value in given.scalars.items())
    assert pack(read, names()) == content


def test_numbers_in_full_precision_are_counted_one_by_one() -> None:
    given = model((3, 32, 1, 8))
    norms_and_bias = sum(p.numel() for n, p in network().named_parameters() if "weight" not in n or p.ndim == 1)
    statistics = 2 * (8 + 48 + 48)
    assert scalars_in_full(given) == norms_and_bias + statistics + 3 * 2 + 3  # scales and offsets, scales of inputs


def test_the_network_of_a_file_computes_with_dequantised_weights_and_quantised_inputs() -> None:
    given, whole = model((2, 3, 1, 8)), network()
    found = quantized_network(given, network())
    x = torch.rand(5, 1, 4, 4)
    h = x.flatten(1)
    for place, name in enumerate(names()):
        weight = given.weights[name]
        values = float(weight.offset) + float(weight.scale) * torch.from_numpy(weight.codes.astype(np.float32))
        if place:
            h = (torch.clamp(torch.round(h / 0.5) + 1, 0, 3) - 1) * 0.5
        h = h @ values.T
        if place < 3:
            norm = whole[int(name) + 1]
            h = torch.relu((h - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias)
    assert torch.allclose(found(x), h + whole[int(names()[-1])].bias, atol=1e-4)
    assert not found.training


def test_inputs_are_rounded_half_to_even_and_clipped() -> None:
    x = torch.tensor([-9.0, -0.5, -0.25, 0.25, 0.75, 1.25, 9.0])
    assert quantized_input(x, QuantizedInput(2, 0.5, 0)).tolist() == [0, 0, 0, 0, 1.0, 1.0, 1.5]
    assert quantized_input(x, QuantizedInput(2, 0.5, 2)).tolist() == [-1.0, -0.5, 0, 0, 0.5, 0.5, 0.5]
    assert quantized_input(x, QuantizedInput()) is x


@pytest.mark.parametrize("keep", [0, 3, 6, 30, 200, -1])
def test_files_that_are_cut_short_are_refused(tmp_path: Path, keep: int) -> None:
    content = pack(model(), names())
    with pytest.raises(DataError, match="no packed network: it") as error:
        unpack(written(tmp_path, content[:keep]), names(), network())
    assert "\n" not in str(error.value)


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    content = pack(model(), names())
    for place in np.random.default_rng(0).integers(0, len(content), size=60).tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        with pytest.raises(DataError, match="no packed network"):
            unpack(written(tmp_path, bytes(changed)), names(), network())


def _set(entry: int, **values: Any) -> Any:
    return lambda header: header["layers"][entry].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(0, bits=0), "bits 0"),
        (_set(0, bits=9), "bits 9"),
        (_set(0, bits=True), "no whole number"),
        (_set(0, bits="3"), "no whole number"),
        (_set(0, shape=[8, -1]), "no whole number"),
        (_set(0, shape=[2**31 - 1] * 4), "too large"),
        (_set(0, shape=[8, 15]), "bytes behind its header"),
        (_set(0, shape=[16, 8]), "codes of shape"),
        (_set(0, name="other"), "lacks '1'"),
        (_set(1, name="1"), "twice"),
        (_set(1, input_zero=4), "zero of its input"),
        (_set(0, channels=3), "bytes behind its header"),
        (lambda header: {"layers": []}, "header is damaged"),
        (lambda header: [], "header is damaged"),
        (lambda header: header["scalars"].pop(), "bytes behind its header"),
        (lambda header: header["scalars"][0].__setitem__(0, "else"), "lacks"),
    ],
)
def test_headers_made_on_purpose_are_refused_in_one_line(tmp_path: Path, change: Any, message: str) -> None:
    content = with_header(pack(model(), names()), change)
    with pytest.raises(DataError, match=message) as error:
        unpack(written(tmp_path, content), names(), network())
    assert "\n" not in str(error.value)


def test_bits_behind_the_last_code_must_be_zero(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="behind the last code"):
        unpack_codes(bytes([0b1000_0001]), 3, (2,))
    with pytest.raises(DataError, match="cannot be read"):
        unpack(tmp_path / "none.bsq", names(), network())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 2}, "codes must be whole numbers from 0 to 3"),
        ({"bits": 12}, "12 bits"),
        ({"codes": np.zeros((8, 16))}, "whole numbers"),
        ({"codes": np.zeros((8, 15), int)}, "codes of shape"),
        ({"scale": np.float32(np.nan) + np.zeros((), np.float32)}, "scale must be finite"),
        ({"scale": np.ones(3, np.float32)}, "scale must be finite float32 of shape"),
        ({"offset": np.zeros((), np.float64)}, "offset must be finite float32"),
        ({"offset": np.zeros(8, np.float32)}, "of one shape"),
    ],
)
def test_what_a_method_hands_back_is_checked(change: dict[str, Any], message: str) -> None:
    given = model()
    first = names()[0]
    codes = np.full((8, 16), 7)
    weight = replace(given.weights[first], codes=codes)
    with pytest.raises(InvalidPrediction, match=message):
        checked(replace_weight(given, first, replace(weight, **change)), names(), network())


def replace_weight(given: QuantizedModel, name: str, weight: QuantizedWeight) -> QuantizedModel:
    return QuantizedModel({**given.weights, name: weight}, given.inputs, given.scalars)


def test_missing_and_odd_parts_are_refused() -> None:
    given, first = model(), names()[0]
    with pytest.raises(InvalidPrediction, match="needs a QuantizedModel"):
        checked(None, names(), network())  # type: ignore[arg-type]
    for changed, message in (
        (QuantizedModel({}, given.inputs, given.scalars), "layers: it lacks"),
        (QuantizedModel(given.weights, {**given.inputs, "x": QuantizedInput()}, given.scalars), "unknown 'x'"),
        (QuantizedModel(given.weights, given.inputs, {}), "scalars: it lacks"),
        (QuantizedModel(given.weights, {**given.inputs, first: QuantizedInput(2, 0.1, 0)}, given.scalars), "float32"),
        (QuantizedModel(given.weights, {**given.inputs, first: QuantizedInput(2, -1.0, 0)}, given.scalars), "positive"),
        (QuantizedModel(given.weights, {**given.inputs, first: QuantizedInput(9, 1.0, 0)}, given.scalars), "9 bits"),
    ):
        with pytest.raises(InvalidPrediction, match=message):
            checked(changed, names(), network())
