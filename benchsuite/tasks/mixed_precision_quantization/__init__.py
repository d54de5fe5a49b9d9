"""Mixed-precision quantisation: a trained network within a budget of bits."""

from __future__ import annotations

from benchsuite.core import Presentation, Publication, TaskSpec

_COUNTS = ("weight_bits", "activation_bits", "bitops", "compression", "model_bytes")
_NAMES = {
    "top1": "Top-1",
    "gap": "gap to full precision",
    "weight_bits": "W bits",
    "activation_bits": "A bits",
    "bitops": "BitOPs",
    "packed_bytes": "file",
    "over_budget": "over budget",
    "latency_int8_ms": "latency, integers",
    "latency_fp32_ms": "latency, full precision",
}

TASKS = (
    TaskSpec(
        name="mixed-precision-quantization",
        title="Mixed-precision quantisation within a budget of bits",
        load="benchsuite.tasks.mixed_precision_quantization.task:MixedPrecisionQuantization",
        requires=("torch", "PIL", "matplotlib"),
        install="pip install 'benchsuite[quantization]'",
        scaffold="benchsuite.tasks.mixed_precision_quantization:scaffold.txt",
        shown=Presentation(
            headline=("top1", "weight_bits", "bitops", "packed_bytes"),
            names=_NAMES,
            exact=(*_COUNTS, *(f"{name}_inner" for name in _COUNTS), "packed_bytes", "over_budget"),
            cost="fit_seconds",
        ),
        published=Publication(
            seeds={"run": 10}, protocols=({}, {"model": "cnn"}), without={"oracle-strategy": ({"model": "cnn"},)}
        ),
    ),
)
