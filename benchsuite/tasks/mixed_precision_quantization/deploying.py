"""A packed network as ONNX with integers, and how long onnxruntime takes for it: measured, never computed.

Batch norms are folded into the scales of the layer before; weights become 4- or 8-bit integers behind a
``DequantizeLinear``, inputs of layers go through ``QuantizeLinear`` (behind a clip where they have fewer than 8 bits).
A latency counts as one in integers only if onnxruntime runs at least half of the layers in integer kernels, which its
optimised graph tells: a clip, or a sum, between a layer and the next rounding keeps that layer in full precision.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchsuite.core import Metric
from benchsuite.tasks.mixed_precision_quantization.contract import (
    FULL_BITS,
    MOST_BITS,
    QuantizationProtocol,
    QuantizedInput,
    QuantizedModel,
    QuantizedWeight,
)
from benchsuite.tasks.mixed_precision_quantization.packed import quantized_network

__all__ = ["LATENCY", "Integers", "NoIntegers", "export_onnx", "integers_of", "measure_latency"]

LATENCY = (
    Metric(
        "latency_int8_ms",
        "min",
        unit="ms",
        kind="cost",
        doc="one picture in onnxruntime, half of the layers or more in integers",
    ),
    Metric("latency_fp32_ms", "min", unit="ms", kind="cost", doc="the full-precision network there, timed in turn"),
)

_OPSET, _EXPORTED_OPSET = 21, 20
_LEAST, _LARGEST = -127, 127  # without -128: the sign of a folded norm may be turned round
_FOUR_BITS = 7
_WHOLE = 1e-3
_KERNELS = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger")
_AGREEING = 0.9
_LEAST_SHARE = 0.5

Whole = NDArray[np.int64]


class NoIntegers(Exception):
    """Why a network has no form in integers: one line."""


@dataclass(frozen=True, eq=False)
class Integers:
    """A weight as ``scale * integer``, an input as ``scale * (code - zero)``.

    Attributes
    ----------
    weight
        int64 of the weight's shape, -127 .. 127.
    scale
        float64 (output channels,).
    seen
        The input.
    """

    weight: Whole
    scale: NDArray[np.float64]
    seen: QuantizedInput


def integers_of(weight: QuantizedWeight, seen: QuantizedInput) -> Integers:
    """Return a layer in integers.

    ``offset + scale * code`` is ``scale * (code + offset / scale)``; where offset / scale is half of an odd number,
    codes are doubled and the scale is halved.

    Raises
    ------
    NoIntegers
        If there is a layer or an input in full precision, or what comes out does not fit into 8 bits.
    """
    if weight.bits == FULL_BITS or seen.bits == FULL_BITS:
        raise NoIntegers("weights or inputs of a layer are in full precision")
    count = weight.codes.shape[0]
    scale = np.broadcast_to(weight.scale.astype(np.float64), (count,))
    shift = np.broadcast_to(weight.offset.astype(np.float64), (count,)) / scale
    for factor in (1, 2):
        moved = np.round(factor * shift)
        if np.abs(factor * shift - moved).max() < _WHOLE:
            codes = factor * weight.codes.astype(np.int64)
            whole = codes + moved.astype(np.int64).reshape(-1, *(1,) * (weight.codes.ndim - 1))
            if whole.min() >= _LEAST and whole.max() <= _LARGEST:
                return Integers(whole, scale / factor, seen)
    raise NoIntegers(f"the levels of a layer with {weight.bits} bits do not fit into symmetric 8-bit integers")


def folded(model: QuantizedModel, network: nn.Module) -> tuple[nn.Module, dict[str, Integers]]:
    """Return the network without the batch norms behind layers, and the layers in integers with these norms in them.

    Raises
    ------
    NoIntegers
        If the network cannot be traced, or a layer has no form in integers.
    """
    found = {name: integers_of(weight, model.inputs[name]) for name, weight in model.weights.items()}
    plain = QuantizedModel(model.weights, {name: QuantizedInput() for name in model.inputs}, model.scalars)
    try:
        traced = torch.fx.symbolic_trace(quantized_network(plain, network))
    except Exception as error:  # networks that branch on values fail in many ways
        raise NoIntegers(f"the network cannot be traced ({type(error).__name__})") from None
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            continue
        before = node.args[0]
        layer = modules.get(str(before.target)) if before.op == "call_module" else None
        if not isinstance(layer, (nn.Conv2d, nn.Linear)) or len(before.users) > 1:
            continue
        factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()  # (output channels,)
        bias = layer.bias if layer.bias is not None else torch.zeros_like(norm.bias)
        layer.weight.data *= factor.reshape(-1, *(1,) * (layer.weight.ndim - 1))
        layer.bias = nn.Parameter((bias - norm.running_mean) * factor + norm.bias)
        name = str(before.target)
        signs = np.sign(factor.double().numpy())
        turned = found[name].weight * signs.astype(np.int64).reshape(-1, *(1,) * (layer.weight.ndim - 1))
        size = np.maximum(np.abs(factor.double().numpy()) * found[name].scale, 1e-30)
        found[name] = Integers(turned, size, found[name].seen)
        parent, _, child = str(node.target).rpartition(".")
        setattr(traced.get_submodule(parent), child, nn.Identity())
    return traced.eval(), found


def _exported(network: nn.Module, pictures: Tensor, path: Path) -> Any:
    """Write a network in full precision as ONNX, and return it."""
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (pictures[:1],),
            str(path),
            dynamo=False,
            opset_version=_EXPORTED_OPSET,
            input_names=["pictures"],
            output_names=["logits"],
            dynamic_axes={"pictures": {0: "batch"}, "logits": {0: "batch"}},
        )
    return onnx.load(str(path))


def export_onnx(
    model: QuantizedModel, network: nn.Module, pictures: Tensor, path: Path, four_bits: bool = True
) -> None:
    """Write a quantised network as ONNX with QuantizeLinear and DequantizeLinear.

    Parameters
    ----------
    model
        What was read from a packed file.
    network
        In full precision; it is changed.
    pictures
        (B, C, H, W), as an example.
    path
        Of the file.
    four_bits
        Whether integers that fit are stored in 4 bits, else all in 8.

    Raises
    ------
    NoIntegers
        If there is no such form.
    """
    import onnx
    from onnx import helper, numpy_helper

    plain, layers = folded(model, network.cpu())
    graph_model = _exported(plain, pictures, path)
    graph = graph_model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    done: set[str] = set()
    nodes: list[Any] = []

    def constant(name: str, values: Any, kind: Any) -> str:
        array = np.asarray(values)
        if kind == onnx.TensorProto.INT4:
            made = helper.make_tensor(name, kind, array.shape, array.astype(np.int8).ravel().tolist())
        else:
            made = numpy_helper.from_array(array, name)
        graph.initializer.append(made)
        return name

    for node in graph.node:
        name = next((key for key in layers if len(node.input) > 1 and node.input[1] == f"{key}.weight"), None)
        if name is None:
            nodes.append(node)
            continue
        layer, done = layers[name], done | {name}
        small = four_bits and np.abs(layer.weight).max() <= _FOUR_BITS
        kind = onnx.TensorProto.INT4 if small else onnx.TensorProto.INT8
        seen = layer.seen
        source = node.input[0]
        if seen.bits < MOST_BITS:
            low, high = -seen.zero * seen.scale, (2**seen.bits - 1 - seen.zero) * seen.scale
            bounds = [constant(f"{name}.{end}", np.float32(v), None) for end, v in (("least", low), ("largest", high))]
            nodes.append(helper.make_node("Clip", [source, *bounds], [f"{name}.clipped"]))
            source = f"{name}.clipped"
        step = [
            constant(f"{name}.input_scale", np.float32(seen.scale), None),
            constant(f"{name}.input_zero", np.uint8(seen.zero), None),
        ]
        nodes.append(helper.make_node("QuantizeLinear", [source, *step], [f"{name}.codes"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}.codes", *step], [f"{name}.input"]))
        weight = [
            constant(f"{name}.integers", layer.weight.astype(np.int8), kind),
            constant(f"{name}.scale", layer.scale.astype(np.float32), None),
            constant(f"{name}.zero", np.zeros(len(layer.scale), np.int8), kind),
        ]
        nodes.append(helper.make_node("DequantizeLinear", weight, [f"{name}.dequantized"], axis=0))
        inputs = [f"{name}.input", f"{name}.dequantized"]
        if len(node.input) > 2:
            whole_scale = layer.scale * seen.scale
            bias = np.round(numpy_helper.to_array(stored[node.input[2]]) / whole_scale)
            if np.abs(bias).max() >= 2**31:
                raise NoIntegers("a bias does not fit into 32-bit integers of its layer's scale")
            parts = [
                constant(f"{name}.bias_integers", bias.astype(np.int32), None),
                constant(f"{name}.bias_scale", whole_scale.astype(np.float32), None),
            ]
            nodes.append(helper.make_node("DequantizeLinear", parts, [f"{name}.bias_dequantized"], axis=0))
            inputs.append(f"{name}.bias_dequantized")
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        del changed.input[:]
        changed.input.extend(inputs)
        nodes.append(changed)
    if set(layers) != done:
        raise NoIntegers(f"the exported graph has no layer {min(set(layers) - done)!a}")
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph_model.opset_import[:]
    graph_model.opset_import.append(helper.make_opsetid("", _OPSET))
    graph_model.ir_version = 10
    onnx.checker.check_model(graph_model)
    onnx.save(graph_model, str(path))


def measure_latency(
    model: QuantizedModel, build: Callable[[], nn.Module], pictures: Tensor, protocol: QuantizationProtocol
) -> tuple[dict[str, float | None], dict[str, str], list[dict[str, Any]]]:
    """Time one picture in integers and in full precision, in turn, on one thread of onnxruntime.

    Parameters
    ----------
    model
        What was read from a packed file.
    build
        Returns the full-precision network.
    pictures
        (B, C, H, W) on the CPU: what both forms must agree on.
    protocol
        Passes.

    Returns
    -------
    scores, undefined
        Of `LATENCY`.
    table
        What was timed, and how many layers run in which integer kernel.
    """
    names = [metric.name for metric in LATENCY]
    try:
        import onnxruntime
    except ImportError:
        reason = "onnxruntime is not installed: pip install 'benchsuite[quantization]'"
        return dict.fromkeys(names), dict.fromkeys(names, reason), []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _exported(build().cpu(), pictures, folder / "full.onnx")
        forms = {"latency_fp32_ms": _session(onnxruntime, folder / "full.onnx")}
        undefined: dict[str, str] = {}
        kernels: dict[str, int] = {}
        try:
            export_onnx(model, build().cpu(), pictures, folder / "integers.onnx", four_bits=False)
            integers = _session(onnxruntime, folder / "integers.onnx", folder / "optimised.onnx")
            kernels = _integer_kernels(folder / "optimised.onnx")
            if sum(kernels.values()) < _LEAST_SHARE * len(model.weights):
                raise NoIntegers(
                    f"onnxruntime runs {sum(kernels.values())} of {len(model.weights)} layers in integer kernels"
                )
            _agree(integers, model, build, pictures)
            forms["latency_int8_ms"] = integers
        except NoIntegers as reason:
            undefined["latency_int8_ms"] = str(reason)
        timed = _in_turn(forms, pictures[:1].numpy(), protocol)
    scores: dict[str, float | None] = {name: timed.get(name) for name in names}
    rows: list[dict[str, Any]] = [{"what": name, "value": value} for name, value in timed.items()]
    rows += [{"what": f"layers in {kernel}", "value": count} for kernel, count in kernels.items()]
    return scores, undefined, rows


def _session(onnxruntime: Any, path: Path, optimised: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _integer_kernels(path: Path) -> dict[str, int]:
    """Return how often each integer kernel stands in an optimised graph."""
    import onnx

    kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
    return {kind: kinds.count(kind) for kind in _KERNELS if kind in kinds}


def _agree(integers: Any, model: QuantizedModel, build: Callable[[], nn.Module], pictures: Tensor) -> None:
    """Raise `NoIntegers` unless the classes are those of the packed network for nine pictures of ten."""
    with torch.no_grad():
        own = quantized_network(model, build().cpu())(pictures).argmax(dim=1).numpy()
    found = integers.run(None, {"pictures": pictures.numpy()})[0].argmax(axis=1)
    if float((own == found).mean()) < _AGREEING:
        raise NoIntegers("the form in integers names other classes than the packed network")


def _in_turn(forms: Mapping[str, Any], picture: Any, protocol: QuantizationProtocol) -> dict[str, float]:
    """Return the median milliseconds of each form, one pass of each in turn."""
    walls: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(protocol.warm_ups + protocol.latency_repeats):
        for name, session in forms.items():
            start = time.perf_counter()
            session.run(None, {"pictures": picture})
            if turn >= protocol.warm_ups:
                walls[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(found)) for name, found in walls.items()}
