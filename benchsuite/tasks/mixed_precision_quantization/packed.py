"""The packed file of a quantised network: written by the task for every method, and read before anything is judged.

Layout, all numbers little-endian
---------------------------------
1. ``BSQ1``, then the length of the header in bytes, uint32.
2. The header, JSON in ASCII: ``layers`` lists, in the order of use, ``name``, ``shape``, ``bits``, ``channels`` (number
   of scales and offsets, 0 for one of the whole tensor), ``input_bits``, ``input_zero``; ``scalars`` name and shape.
3. Codes, layer by layer, ceil(n b / 8) bytes each: code i takes the bits i b to (i + 1) b - 1, the lowest bit first,
   bit j being bit j % 8 (the lowest is 0) of byte j // 8; what is left of the last byte is 0. With 32 bits the
   weights as float32.
4. float32: of each layer scales and offsets (below 32 bits) and the scale of its input (below 32 bits); the scalars.
5. The sha256 of all that comes before, 32 bytes.

So a file has 8 + header + sum of ceil(n_l b_l / 8) + 4 x (scales, offsets, scalars) + 32 bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.tasks.mixed_precision_quantization.contract import (
    FULL_BITS,
    MOST_BITS,
    QuantizedInput,
    QuantizedModel,
    QuantizedWeight,
)

__all__ = [
    "checked",
    "dequantized_weight",
    "pack",
    "pack_codes",
    "quantized_input",
    "quantized_network",
    "scalars_in_full",
    "scalars_of",
    "unpack",
    "unpack_codes",
]

MAGIC = b"BSQ1"
_CHECKSUM_BYTES = 32
_COUNTER = "num_batches_tracked"
_LARGEST_HEADER = 2**24

Floats = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]


def pack_codes(codes: NDArray[Any], bits: int) -> bytes:
    """Return codes of any shape, in 0 .. 2**bits - 1, as ceil(n bits / 8) bytes."""
    planes = codes.reshape(-1, 1).astype(np.uint8) >> np.arange(bits, dtype=np.uint8) & 1  # (n, bits)
    return np.packbits(planes.ravel(), bitorder="little").tobytes()


def unpack_codes(content: bytes, bits: int, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return the codes of a shape; raises ValueError if what is left of the last byte is not 0."""
    count = math.prod(shape)
    planes = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    if planes[count * bits :].any():
        raise ValueError("bits behind the last code are not 0")
    weights = (1 << np.arange(bits)).astype(np.uint8)
    found: NDArray[np.uint8] = planes[: count * bits].reshape(count, bits) @ weights
    return found.reshape(tuple(shape))


def scalars_of(network: nn.Module, layers: Sequence[str]) -> dict[str, Floats]:
    """Return what of a network's state is no weight of a layer, float32; counters of batches are left out."""
    weights = {f"{name}.weight" for name in layers}
    return {
        name: value.detach().float().cpu().numpy().copy()
        for name, value in network.state_dict().items()
        if name not in weights and not name.endswith(_COUNTER)
    }


def scalars_in_full(model: QuantizedModel) -> int:
    """Return how many float32 numbers a file has besides codes: scales, offsets, biases, norms."""
    count = sum(value.size for value in model.scalars.values())
    count += sum(w.scale.size + w.offset.size for w in model.weights.values() if w.bits < FULL_BITS)
    return count + sum(q.bits < FULL_BITS for q in model.inputs.values())


def pack(model: QuantizedModel, layers: Sequence[str]) -> bytes:
    """Return the file of a checked model, its layers in the given order."""
    entries, codes, floats = [], [], []
    for name in layers:
        weight, seen = model.weights[name], model.inputs[name]
        full = weight.bits == FULL_BITS
        entries.append(
            {
                "name": name,
                "shape": list(weight.codes.shape),
                "bits": weight.bits,
                "channels": 0 if full else weight.scale.size if weight.scale.ndim else 0,
                "input_bits": seen.bits,
                "input_zero": seen.zero,
            }
        )
        codes.append(weight.codes.astype("<f4").tobytes() if full else pack_codes(weight.codes, weight.bits))
        if not full:
            floats += [weight.scale, weight.offset]
        if seen.bits < FULL_BITS:
            floats.append(np.array(seen.scale, np.float32))
    scalars = [[name, list(value.shape)] for name, value in model.scalars.items()]
    floats += list(model.scalars.values())
    header = json.dumps({"layers": entries, "scalars": scalars}, separators=(",", ":")).encode("ascii")
    content = b"".join(
        [MAGIC, struct.pack("<I", len(header)), header, *codes, *(f.astype("<f4").tobytes() for f in floats)]
    )
    return content + hashlib.sha256(content).digest()


def unpack(path: Path, layers: Sequence[str], network: nn.Module) -> QuantizedModel:
    """Read a packed file for a network.

    Parameters
    ----------
    path
        Of the file.
    layers
        Names of the quantised layers, in the order of use.
    network
        In full precision: its shapes are what a file must have.

    Raises
    ------
    DataError
        One line: a file cut short, changed or of another kind, and whatever does not fit the network.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): give a packed network") from None
    try:
        found = _parsed(content)
    except ValueError as error:
        raise DataError(f"{path}: no packed network: {error}") from None
    problem = _problem(found, layers, network)
    if problem:
        raise DataError(f"{path}: does not fit the network: {problem}")
    return found


def checked(model: QuantizedModel, layers: Sequence[str], network: nn.Module) -> QuantizedModel:
    """Return what a method handed back if it can be packed; raises `InvalidPrediction` in one line."""
    if not isinstance(model, QuantizedModel):
        raise InvalidPrediction(f"the method returned {type(model).__name__}, needs a QuantizedModel")
    problem = _problem(model, layers, network)
    if problem:
        raise InvalidPrediction(f"this quantised model cannot be packed: {problem}")
    return model


def dequantized_weight(weight: QuantizedWeight) -> Tensor:
    """Return ``offset + scale * code``, float32, on the CPU."""
    codes = torch.from_numpy(np.ascontiguousarray(weight.codes, dtype=np.float32))
    if weight.bits == FULL_BITS:
        return codes
    trailing = (1,) * (codes.ndim - 1)
    scale, offset = (torch.from_numpy(np.asarray(v, np.float32)) for v in (weight.scale, weight.offset))
    if scale.ndim:
        scale = scale.reshape(-1, *trailing)
    if offset.ndim:
        offset = offset.reshape(-1, *trailing)
    return offset + scale * codes


def quantized_input(x: Tensor, seen: QuantizedInput) -> Tensor:
    """Return ``scale * (clip(round(x / scale) + zero, 0, 2**bits - 1) - zero)``, halves rounded to even."""
    if seen.bits == FULL_BITS:
        return x
    codes = torch.clamp(torch.round(x / seen.scale) + seen.zero, 0, 2**seen.bits - 1)
    return (codes - seen.zero) * seen.scale


def quantized_network(model: QuantizedModel, network: nn.Module) -> nn.Module:
    """Turn a full-precision network into the quantised one, and return it in evaluation mode."""
    device = next(network.parameters()).device
    state = {name: torch.from_numpy(np.asarray(value)) for name, value in model.scalars.items()}
    state |= {f"{name}.weight": dequantized_weight(weight) for name, weight in model.weights.items()}
    state |= {name: value for name, value in network.state_dict().items() if name.endswith(_COUNTER)}
    network.load_state_dict(state, strict=True)
    modules = dict(network.named_modules())
    for name, seen in model.inputs.items():
        if seen.bits < FULL_BITS:
            modules[name].register_forward_pre_hook(_Quantize(seen))
    return network.to(device).eval()


class _Quantize:
    """A hook that quantises the input of a layer; it pickles."""

    def __init__(self, seen: QuantizedInput) -> None:
        self.seen = seen

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (quantized_input(inputs[0], self.seen),)


def _parsed(content: bytes) -> QuantizedModel:
    """Return what a file holds; raises ValueError."""
    if content[:4] != MAGIC:
        raise ValueError(f"it does not start with {MAGIC.decode()}")
    if len(content) < 8 + _CHECKSUM_BYTES:
        raise ValueError("it is cut short")
    if hashlib.sha256(content[:-_CHECKSUM_BYTES]).digest() != content[-_CHECKSUM_BYTES:]:
        raise ValueError("its checksum is wrong: it was cut short or changed")
    (length,) = struct.unpack("<I", content[4:8])
    if length > min(_LARGEST_HEADER, len(content) - 8 - _CHECKSUM_BYTES):
        raise ValueError(f"a header of {length} bytes does not fit into it")
    try:
        header = json.loads(content[8 : 8 + length].decode("ascii"))
        entries = [_entry(found) for found in header["layers"]]
        scalars = [(str(name), _shape(shape)) for name, shape in header["scalars"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"its header is damaged ({type(error).__name__}: {error})") from None
    return _read(content[8 + length : -_CHECKSUM_BYTES], entries, scalars)


def _read(
    body: bytes, entries: Sequence[Mapping[str, Any]], scalars: Sequence[tuple[str, tuple[int, ...]]]
) -> QuantizedModel:
    """Return codes and floats behind the header; raises ValueError."""
    names, scalar_names = [e["name"] for e in entries], [name for name, _ in scalars]
    if len(set(names)) < len(names) or len(set(scalar_names)) < len(scalar_names):
        raise ValueError("a layer or a scalar stands in its header twice")
    sizes = [-(-math.prod(e["shape"]) * e["bits"] // 8) for e in entries]
    count = sum(math.prod(shape) for _, shape in scalars)
    count += sum(2 * max(1, e["channels"]) for e in entries if e["bits"] < FULL_BITS)
    count += sum(e["input_bits"] < FULL_BITS for e in entries)
    if len(body) != sum(sizes) + 4 * count:
        raise ValueError(f"it holds {len(body)} bytes behind its header, which announces {sum(sizes) + 4 * count}")
    floats = np.frombuffer(body, "<f4", count, sum(sizes)).astype(np.float32)
    place, at = 0, 0
    weights, inputs = {}, {}

    def take(shape: tuple[int, ...]) -> Floats:
        nonlocal at
        at += math.prod(shape)
        return floats[at - math.prod(shape) : at].reshape(shape)

    for entry, size in zip(entries, sizes, strict=True):
        name, shape, bits = entry["name"], entry["shape"], entry["bits"]
        part = body[place : place + size]
        place += size
        if bits == FULL_BITS:
            weights[name] = QuantizedWeight(bits, np.frombuffer(part, "<f4").astype(np.float32).reshape(shape))
        else:
            channels = (entry["channels"],) if entry["channels"] else ()
            codes = unpack_codes(part, bits, shape)
            weights[name] = QuantizedWeight(bits, codes, take(channels), take(channels))
        scale = float(take(())) if entry["input_bits"] < FULL_BITS else 1.0
        inputs[name] = QuantizedInput(entry["input_bits"], scale, entry["input_zero"])
    return QuantizedModel(weights, inputs, {name: take(shape) for name, shape in scalars})


def _entry(found: Any) -> dict[str, Any]:
    """Return a layer of the header; raises ValueError, TypeError or KeyError."""
    entry: dict[str, Any] = {
        "name": str(found["name"]),
        "shape": _shape(found["shape"]),
        **{key: _whole(found[key]) for key in ("bits", "channels", "input_bits", "input_zero")},
    }
    for key in ("bits", "input_bits"):
        if entry[key] != FULL_BITS and not 1 <= entry[key] <= MOST_BITS:
            raise ValueError(f"{key} {entry[key]}")
    return entry


def _shape(found: Any) -> tuple[int, ...]:
    shape = tuple(_whole(side) for side in found)
    if len(shape) > 8 or math.prod(shape) > 2**40:
        raise ValueError("a shape is too large")
    return shape


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise ValueError(f"{value!r} is no whole number from 0 on")
    return value


def _problem(model: QuantizedModel, layers: Sequence[str], network: nn.Module) -> str:
    """Return what does not fit a network, or nothing."""
    state = network.state_dict()
    scalars = scalars_of(network, layers)
    parts: tuple[tuple[str, Mapping[str, Any], Collection[str]], ...] = (
        ("layers", model.weights, layers),
        ("inputs of layers", model.inputs, layers),
        ("scalars", model.scalars, scalars),
    )
    for what, found, wanted in parts:
        different = sorted(set(found) ^ set(wanted))
        if different:
            lacks = "lacks" if different[0] in wanted else "has the unknown"
            return f"{what}: it {lacks} {different[0]!a}"
    for name in layers:
        problem = _weight_problem(model.weights[name], tuple(state[f"{name}.weight"].shape))
        problem = problem or _input_problem(model.inputs[name])
        if problem:
            return f"{name}: {problem}"
    for name, value in scalars.items():
        own = np.asarray(model.scalars[name])
        if own.shape != value.shape or own.dtype != np.float32 or not np.isfinite(own).all():
            return f"{name}: needs finite float32 of shape {value.shape}, not {own.dtype} {own.shape}"
    return ""


def _weight_problem(weight: QuantizedWeight, shape: tuple[int, ...]) -> str:
    codes = np.asarray(weight.codes)
    if codes.shape != shape:
        return f"codes of shape {codes.shape}, the weight has {shape}"
    if weight.bits == FULL_BITS:
        fine = codes.dtype == np.float32 and np.isfinite(codes).all()
        return "" if fine else "32 bits need finite float32 weights"
    if isinstance(weight.bits, bool) or weight.bits not in range(1, MOST_BITS + 1):
        return f"{weight.bits!r} bits: 1 to {MOST_BITS}, or {FULL_BITS}"
    if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= 2**weight.bits:
        return f"codes must be whole numbers from 0 to {2**weight.bits - 1}"
    for what, value in (("scale", weight.scale), ("offset", weight.offset)):
        found = np.asarray(value)
        if found.dtype != np.float32 or found.shape not in ((), shape[:1]) or not np.isfinite(found).all():
            return f"the {what} must be finite float32 of shape () or {shape[:1]}, not {found.dtype} {found.shape}"
    if np.shape(weight.scale) != np.shape(weight.offset):
        return "scale and offset must be of one shape"
    return ""


def _input_problem(seen: QuantizedInput) -> str:
    if seen.bits == FULL_BITS:
        return ""
    if isinstance(seen.bits, bool) or seen.bits not in range(1, MOST_BITS + 1):
        return f"an input of {seen.bits!r} bits: 1 to {MOST_BITS}, or {FULL_BITS}"
    if not 0 <= seen.zero < 2**seen.bits:
        return f"the zero of its input is {seen.zero}: needs 0 to {2**seen.bits - 1}"
    if not (math.isfinite(seen.scale) and seen.scale > 0 and seen.scale == float(np.float32(seen.scale))):
        return f"the scale of its input is {seen.scale!r}: needs a positive float32"
    return ""
