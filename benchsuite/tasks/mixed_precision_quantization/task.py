"""The task: trains the full-precision network of a seed, lets a method quantise it, judges the file.

Protocol: the method sees training pictures and the trained network, never test pictures. What it hands back is packed
into a file; the network that is judged is built from that file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from benchsuite.core import Case, ConfigError, Constraint, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.tasks.mixed_precision_quantization.contract import (
    Budget,
    FullPrecision,
    Layer,
    QuantizationData,
    QuantizationProtocol,
    QuantizedModel,
    Quantizer,
    average_bits,
)
from benchsuite.tasks.mixed_precision_quantization.costs import COUNTED
from benchsuite.tasks.mixed_precision_quantization.deploying import LATENCY, NoIntegers, export_onnx, measure_latency
from benchsuite.tasks.mixed_precision_quantization.judge import QUALITY, compare_logits, judge, top1_of
from benchsuite.tasks.mixed_precision_quantization.networks import build_network
from benchsuite.tasks.mixed_precision_quantization.packed import checked, pack, quantized_network, unpack
from benchsuite.tasks.mixed_precision_quantization.sources import parts_of, relabelled
from benchsuite.tasks.mixed_precision_quantization.teachers import full_precision, inventory, predicted

_PREDICTIONS = "predictions.bsq"
_ONNX = "network.onnx"
_COMPARED = 64

_CIFAR: dict[str, Any] = {
    **{"model": "resnet20", "size": 32, "augment": "crop-flip", "activation_bits": 32, "input_bits": 32},
    **{"teacher_optimizer": "sgd", "teacher_epochs": 200, "teacher_batch": 128, "teacher_lr": 0.1},
}
_IMAGENET: dict[str, Any] = {
    **{"model": "resnet18", "size": 224, "crop": 0.875, "augment": "resized-crop", "weight_bits": 3.61},
    **{"activation_bits": 8, "input_bits": 8, "pinned_bits": 8, "calibration": 128},
    **{"teacher_optimizer": "sgd", "teacher_epochs": 90, "teacher_batch": 256, "teacher_lr": 0.1},
}


class MixedPrecisionQuantization(Task[Quantizer, Any, QuantizationProtocol]):
    """See the module."""

    name = "mixed-precision-quantization"
    version = "1"
    Protocol = QuantizationProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset(
            cases=(
                Case({"dataset": "noisy-digits"}, {"activation_bits": 8}),
                Case({"dataset": "cifar10"}, {"model": "resnet20", "size": 32, "augment": "crop-flip"}),
                Case({"dataset": "imagenet"}, {"model": "resnet18", "size": 224, "crop": 0.875}),
            )
        ),
        "paper": Preset(_CIFAR, (Case({"dataset": "imagenet"}, _IMAGENET),)),
    }
    metrics = (*QUALITY, *COUNTED, *LATENCY)
    ranking = Ranking("top1", Constraint("over_budget", at_most=0.0))
    reference = "uniform-dorefa"
    data_type = "benchsuite.datasets.small_images.reader:SmallImages"
    also_takes = ("benchsuite.datasets.image_folders.reader:ImageFolders",)
    method_type = Quantizer
    default_data = "mnist-5k"

    def evaluate(
        self, method: Quantizer, data: Mapping[str, Any], protocol: QuantizationProtocol, ctx: RunContext
    ) -> Outcome:
        """Train or fetch the full-precision network, let the method quantise it, pack, read again, judge."""
        learned, judged = parts_of(data["test"], protocol, ctx.split)
        with ctx.phase("full precision"):
            model = full_precision(learned, protocol, ctx)
        budget = budget_of(model.layers, protocol)
        names = [layer.name for layer in model.layers]
        with ctx.phase("fit"):
            quantized = checked(method.quantize(model, learned, budget, ctx), names, model.build())
        path = ctx.artifact(_PREDICTIONS)
        path.write_bytes(pack(quantized, names))
        with ctx.phase("predict"):
            read = unpack(path, names, model.build())
            network = quantized_network(read, model.build())
            apart = _compare(quantized, network, learned, ctx.device)
            count = len(judged.names)
            top1 = top1_of(predicted(network, judged.batches, count, ctx.device), judged.labels)
            full = top1_of(predicted(model.build(), judged.batches, count, ctx.device), judged.labels)
        outcome = judge(model.layers, read, path.stat().st_size, budget, top1, count)
        outcome.scores["gap"] = full - top1
        with ctx.phase("latency"):
            _deploy(ctx, read, model, learned, protocol, outcome)
        outcome.counts["training_pictures"] = len(learned)
        outcome.parameters = sum(parameter.numel() for parameter in network.parameters())
        outcome.tables["reload"] = [{"largest_difference_of_logits": apart, "full_precision_top1": full}]
        outcome.tables |= {name: list(rows) for name, rows in quantized.tables.items()}
        _draw(ctx, model, outcome)
        return outcome

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data with another class for every test picture."""
        return {role: relabelled(found) for role, found in data.items()}

    def score(self, predictions: Path, data: Mapping[str, Any], protocol: QuantizationProtocol) -> Outcome:
        """Judge a packed file made elsewhere, see `packed`; ``predictions.bsq`` of a run is one."""
        learned, judged = parts_of(data["test"], protocol, "test")

        def empty() -> Any:
            return build_network(protocol.model, learned.channels, learned.classes, protocol.size).eval()

        network = empty()
        layers = inventory(network, [learned.prepared([0])])
        read = unpack(predictions, [layer.name for layer in layers], network)
        network = quantized_network(read, empty())
        top1 = top1_of(predicted(network, judged.batches, len(judged.names), "cpu"), judged.labels)
        budget = budget_of(layers, protocol)
        outcome = judge(layers, read, predictions.stat().st_size, budget, top1, len(judged.names))
        for name in ("gap", *(metric.name for metric in LATENCY)):
            outcome.scores[name] = None
            outcome.undefined[name] = "made elsewhere: there is no full-precision network to compare with"
        return outcome


def budget_of(layers: tuple[Layer, ...], protocol: QuantizationProtocol) -> Budget:
    """Return what a network with these layers may spend; raises `ConfigError` if no strategy is within it."""
    ends = {layers[0].name, layers[-1].name} if protocol.pinned_bits else set()
    inputs = {layer.name: protocol.activation_bits for layer in layers}
    fewest = {layer.name: protocol.pinned_bits if layer.name in ends else protocol.fewest_bits for layer in layers}
    least = average_bits(layers, fewest)
    if least > protocol.weight_bits:
        pinned = f" and {protocol.pinned_bits} in the first and the last" if ends else ""
        raise ConfigError(
            f"a budget of {protocol.weight_bits:g} bits cannot be met: {protocol.fewest_bits} in every layer{pinned}"
            f" are {least:.3g} on average: raise task.weight_bits"
        )
    return Budget(
        weight_bits=protocol.weight_bits,
        candidates=tuple(range(protocol.fewest_bits, protocol.most_bits + 1)),
        pinned={layer.name: protocol.pinned_bits for layer in layers if layer.name in ends},
        input_bits=inputs | {layers[0].name: protocol.input_bits},
    )


def _compare(quantized: QuantizedModel, network: Any, learned: QuantizationData, device: str) -> float | None:
    """Return how far the file's logits are from those of the method's own network, if it gave one."""
    if quantized.network is None:
        return None
    count = min(_COMPARED, len(learned))
    return compare_logits(
        predicted(quantized.network.eval(), learned, count, device), predicted(network, learned, count, device)
    )


def _deploy(
    ctx: RunContext,
    read: QuantizedModel,
    model: FullPrecision,
    learned: QuantizationData,
    protocol: QuantizationProtocol,
    outcome: Outcome,
) -> None:
    """Add latencies to an outcome, and keep the network as ONNX where it has that form."""
    pictures = learned.prepared(range(min(_COMPARED, len(learned))))
    scores, undefined, rows = measure_latency(read, model.build, pictures, protocol)
    outcome.scores |= scores
    outcome.undefined |= undefined
    outcome.tables["latency"] = rows
    if scores["latency_fp32_ms"] is not None:
        try:
            export_onnx(read, model.build(), pictures, ctx.artifact(_ONNX))
        except NoIntegers as reason:
            ctx.artifact(_ONNX).unlink(missing_ok=True)
            ctx.log.info(f"no ONNX form in integers: {reason}")


def _draw(ctx: RunContext, model: FullPrecision, outcome: Outcome) -> None:
    from benchsuite.tasks.mixed_precision_quantization.pictures import draw_strategy

    draw_strategy(ctx.artifact("strategy.png"), outcome.tables["layers"], outcome.tables.get("search", []))
