"""What a network costs: multiply-adds by counting, time by measurement, in turn with others.

Multiply-adds are counted as fvcore does for one picture in evaluation mode: convolutions, linear layers and products of
matrices by their multiplications (no bias), 2 an element of an affine batch norm, 5 of an affine layer or group norm,
and nothing for the rest. Unlike there, attention in one fused call counts as its two products, and resizing and pooling
as nothing.

On a shared machine wall times of two runs cannot be compared. All that is compared is timed in turn in one run, with
the processor's time beside the wall's; the latency relative to a fixed yardstick network survives a change of load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from benchsuite.core import Metric, Outcome
from benchsuite.core.errors import InvalidPrediction
from benchsuite.tasks.visual_recognition.contract import CostProtocol, Trained

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "COSTS",
    "NO_DEPLOYED_FORM",
    "Operations",
    "Timing",
    "count_operations",
    "measure_costs",
    "predicted_elsewhere",
    "time_in_turn",
    "yardstick",
]

Shape = tuple[int, ...]
"""Of an input: pictures, channels, height, width."""

_TOLERANCE = 1e-4

COSTS = (
    Metric("macs", "min", unit="M", doc="million multiply-adds of one picture, counted as fvcore does, norms included"),
    Metric("latency_ms", "min", unit="ms", kind="cost", doc="one picture, median wall time"),
    Metric("latency_cpu_ms", "min", unit="ms", kind="cost", doc="one picture, least processor time"),
    Metric("latency_relative", "min", unit="x", kind="cost", doc="least wall time over that of a fixed small network"),
    Metric(
        "latency_deployed_ms", "min", unit="ms", kind="cost", doc="latency_ms of the deployed form, in the same run"
    ),
    Metric("images_per_second", "max", unit="1/s", kind="cost", doc="of batches (of 32), best of a few, wall time"),
)
"""What all three tasks measure besides quality."""

NO_DEPLOYED_FORM = "the method makes no deployed form"


@dataclass(frozen=True)
class Operations:
    """Multiply-adds of one forward pass, by kind; see the module."""

    convolution: int = 0
    linear: int = 0
    matmul: int = 0
    batch_norm: int = 0
    layer_norm: int = 0

    @property
    def products(self) -> int:
        """Without norms: what "MACs" means elsewhere."""
        return self.convolution + self.linear + self.matmul

    @property
    def total(self) -> int:
        """All of them: what fvcore and the tables of mobile backbones call FLOPs."""
        return self.products + self.batch_norm + self.layer_norm


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median and minimum of the wall's, minimum of the processor's."""

    wall_median: float
    wall_min: float
    cpu_min: float


def count_operations(network: nn.Module, shape: Shape) -> Operations:
    """Return the multiply-adds of a forward pass in evaluation mode, counted while it is made.

    Parameters
    ----------
    network
        Its mode is left as it was.
    shape
        Of the input.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    counts = dict.fromkeys((field.name for field in fields(Operations)), 0)
    rules = _rules()

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            rule = rules.get(func.overloadpacket)
            if rule is None:  # calls that are made of others are counted by these
                with self:
                    found = func.decompose(*args, **(kwargs or {}))
                if found is not NotImplemented:
                    return found
            found = func(*args, **(kwargs or {}))
            if rule is not None:
                kind, amount = rule(args, found)
                counts[kind] += int(amount)
            return found

    training = network.training
    network.eval()
    try:
        with torch.no_grad(), Counter():
            network(_input(shape, network))
    finally:
        network.train(training)
    return Operations(**counts)


def _rules() -> dict[Any, Callable[[Sequence[Any], Any], tuple[str, int]]]:
    import torch

    aten = torch.ops.aten

    def convolution(args: Sequence[Any], found: Any) -> tuple[str, int]:
        images, weight, transposed = args[0], args[1], args[6]
        return "convolution", (images if transposed else found).numel() * weight[0].numel()

    def product(kind: str, first: int) -> Callable[[Sequence[Any], Any], tuple[str, int]]:
        return lambda args, found: (kind, found.numel() * args[first].shape[-1])

    def norm(kind: str, weight: int, affine: int, plain: int) -> Callable[[Sequence[Any], Any], tuple[str, int]]:
        return lambda args, found: (kind, args[0].numel() * (plain if args[weight] is None else affine))

    def attention(args: Sequence[Any], found: Any) -> tuple[str, int]:
        query, key, value = args[:3]
        return "matmul", query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])

    batch_norm = norm("batch_norm", 1, 2, 1)
    found = {
        aten.convolution: convolution,
        aten.addmm: product("linear", 1),
        aten.mm: product("linear", 0),
        aten.bmm: product("matmul", 0),
        aten.baddbmm: product("matmul", 1),
        aten.native_batch_norm: batch_norm,
        aten.cudnn_batch_norm: batch_norm,
        aten._native_batch_norm_legit_no_training: batch_norm,
        aten.native_layer_norm: norm("layer_norm", 2, 5, 4),
        aten.native_group_norm: norm("layer_norm", 1, 5, 4),
    }
    for name in dir(aten):
        if name.startswith("_scaled_dot_product_") and "backward" not in name and not name.endswith("_math"):
            found[getattr(aten, name)] = attention
    return found


def time_in_turn(
    candidates: Mapping[str, tuple[Callable[[torch.Tensor], Any], Shape]], repeats: int, warm_ups: int, device: str
) -> dict[str, Timing]:
    """Time several networks in turn: one pass of each, then again one pass of each, and so on.

    Parameters
    ----------
    candidates
        Name to what is called, in evaluation mode, and the shape of its (random) input.
    repeats, warm_ups
        Timed and untimed passes of each.
    device
        Of the inputs.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(shape, generator=generator).to(device) for name, (_, shape) in candidates.items()}
    walls: dict[str, list[float]] = {name: [] for name in candidates}
    processors: dict[str, list[float]] = {name: [] for name in candidates}
    with torch.inference_mode():
        for turn in range(warm_ups + repeats):
            for name, (network, _) in candidates.items():
                _wait(device)
                wall, processor = time.perf_counter(), time.process_time()
                network(inputs[name])
                _wait(device)
                if turn >= warm_ups:
                    walls[name].append(time.perf_counter() - wall)
                    processors[name].append(time.process_time() - processor)
    return {name: Timing(float(np.median(walls[name])), min(walls[name]), min(processors[name])) for name in candidates}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def yardstick(device: str) -> nn.Module:
    """Return a small network that never changes: latencies are told in units of its own."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.Conv2d(16, 32, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=32),
            nn.Conv2d(32, 64, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
    return network.eval().to(device)


def measure_costs(
    outcome: Outcome, trained: Trained, height: int, width: int, protocol: CostProtocol, device: str
) -> None:
    """Add to an outcome what a trained model costs: metrics, parameters, counts, a table of what was timed.

    Raises
    ------
    InvalidPrediction
        If the deployed form gives other outputs than the network.
    """
    network = trained.network.eval()
    one = (1, 3, height, width)
    batch = (protocol.throughput_batch, 3, height, width)
    operations = count_operations(network, one)
    forms: dict[str, Callable[[torch.Tensor], Any]] = {"network": network}
    if trained.deployed is not None:
        compare_outputs(network, trained.deployed, one)
        forms["deployed"] = trained.deployed
    timed = {name: (form, one) for name, form in forms.items()} | {"yardstick": (yardstick(device), one)}
    latency = time_in_turn(timed, protocol.latency_repeats, protocol.warm_ups, device)
    batches = time_in_turn({"network": (network, batch)}, protocol.throughput_repeats, 1, device)
    outcome.scores |= {
        "macs": operations.total / 1e6,
        "latency_ms": 1e3 * latency["network"].wall_median,
        "latency_cpu_ms": 1e3 * latency["network"].cpu_min,
        "latency_relative": latency["network"].wall_min / max(latency["yardstick"].wall_min, 1e-9),
        "latency_deployed_ms": 1e3 * latency["deployed"].wall_median if "deployed" in latency else None,
        "images_per_second": protocol.throughput_batch / max(batches["network"].wall_min, 1e-9),
    }
    if trained.deployed is None:
        outcome.undefined["latency_deployed_ms"] = NO_DEPLOYED_FORM
    outcome.parameters = sum(parameter.numel() for parameter in network.parameters())
    outcome.counts |= {
        "multiply_adds": operations.total,
        "multiply_adds_without_norms": operations.products,
    }
    rows = [("latency", 1, name, found) for name, found in latency.items()]
    rows += [("throughput", protocol.throughput_batch, name, found) for name, found in batches.items()]
    outcome.tables["costs"] = [
        {
            "what": what,
            "form": name,
            "batch": count,
            "input": f"{height} x {width}",
            "wall_median_ms": 1e3 * found.wall_median,
            "wall_min_ms": 1e3 * found.wall_min,
            "cpu_min_ms": 1e3 * found.cpu_min,
        }
        for what, count, name, found in rows
    ]
    if trained.table:
        outcome.tables["training"] = list(trained.table)


def predicted_elsewhere(outcome: Outcome) -> Outcome:
    """Return an outcome without costs: there is no network to measure."""
    for metric in COSTS:
        outcome.scores[metric.name] = None
        outcome.undefined[metric.name] = "predicted elsewhere"
    return outcome


def compare_outputs(network: nn.Module, deployed: Callable[[torch.Tensor], Any], shape: Shape) -> None:
    """Raise `InvalidPrediction` unless both forms give the same to 1e-4 on a random input.

    Outputs larger than 1 are compared relative to the largest.
    """
    import torch

    images = _input(shape, network)
    with torch.inference_mode():
        first, second = _tensors(network(images)), _tensors(deployed(images.clone()))
    if [t.shape for t in first] != [t.shape for t in second]:
        raise InvalidPrediction("the deployed form returns other shapes than the network")
    for one, other in zip(first, second, strict=True):
        apart = float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
        scale = max(1.0, float(one.abs().max())) if one.numel() else 1.0
        if not apart <= _TOLERANCE * scale:
            raise InvalidPrediction(
                f"the deployed form is {apart:.2g} off the network, more than {_TOLERANCE:g} x {scale:g}"
            )


def _tensors(found: Any) -> list[Any]:
    """Return all tensors of nested lists, tuples and mappings, in order."""
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, (list, tuple)):
        return [tensor for part in found for tensor in _tensors(part)]
    return [found]


def _input(shape: Shape, network: nn.Module) -> torch.Tensor:
    import torch

    example = next(iter(network.parameters()), torch.zeros(()))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(example.device)
