"""Speed of EMO and its peers in one interleaved run: eager beside eager, deployed beside deployed.

Every network at its native size and all at 224 px, one picture and a batch, random weights, float32. Wall and CPU
seconds are told apart, since on a shared machine only what was timed in turn may be compared. Networks with branches of
training (RepViT, MobileOne) count in their merged form when deployed. The plain transcription is that of the tests.

python benchmarks/bench_emo.py [--threads 1] [--repeats 12] [--batch 32] [--compile] [--json FILE]
                               [--networks emo_1m edgenext_xx_small] [--plot FILE --accuracy FOLDER]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchsuite.tasks.visual_recognition.costs import count_operations, time_in_turn
from benchsuite_emo.backbones import build_classifier
from benchsuite_emo.deploying import compiled, compiler, deployed

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from plain_emo import plain_emo

PEERS = {
    "emo_1m": 224,
    "emo_2m": 224,
    "emo_5m": 224,
    "emo_6m": 224,
    "mobilevit_xxs": 256,
    "mobilevit_xs": 256,
    "mobilevitv2_050": 256,
    "edgenext_xx_small": 256,
    "edgenext_x_small": 256,
    "mobilenetv2_100": 224,
    "mobilenetv3_small_050": 224,
    "mobilenetv3_small_100": 224,
    "mobilenetv3_large_100": 224,
    "mobilenetv4_conv_small": 224,
    "repvit_m0_9": 224,
    "starnet_s1": 224,
    "shvit_s1": 224,
    "efficientformerv2_s0": 224,
    "fastvit_t8": 256,
    "mobileone_s0": 224,
}
WARM_UPS = 2


def forms(name: str, with_compiler: bool) -> tuple[nn.Module, dict[str, Callable[[Tensor], Any]]]:
    """Return a network and its forms, all with the same outputs."""
    torch.manual_seed(0)
    network = build_classifier(name, 1000, {}).eval()
    found: dict[str, Callable[[Tensor], Any]] = {"eager": network, "deployed": deployed(network)}
    if with_compiler:
        found["compiled"] = compiled(deployed(network))
    if name == "emo_1m":
        state, shape = network.state_dict(), network.shape
        found["transcription"] = lambda x: plain_emo(state, shape, x)
    return network, found


def check(name: str, found: dict[str, Callable[[Tensor], Any]], size: int) -> float:
    """Return how far the forms' outputs lie apart, relative to the largest above 1; raise if that is more than 1e-4."""
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outputs = [form(images) for form in found.values()]
    scale = max(1.0, float(outputs[0].abs().max()))
    apart = max(float((other - outputs[0]).abs().max()) / scale for other in outputs)
    if not apart <= 1e-4:
        raise SystemExit(f"{name}: the forms are {apart:.2g} apart")
    return apart


def measure(names: list[str], native: bool, batch: int, repeats: int, with_compiler: bool) -> list[dict[str, Any]]:
    """Time all forms of all networks in turn."""
    candidates: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...]]] = {}
    facts = {}
    for name in names:
        size = PEERS.get(name, 224) if native else 224
        network, found = forms(name, with_compiler)
        apart = check(name, found, size)
        facts[name] = {
            "network": name,
            "size": size,
            "parameters": sum(p.numel() for p in network.parameters()),
            "multiply_adds": count_operations(network, (1, 3, size, size)).total,
            "apart": apart,
        }
        candidates |= {f"{name} {kind}": (form, (batch, 3, size, size)) for kind, form in found.items()}
    rows = []
    for key, timing in time_in_turn(candidates, repeats, WARM_UPS, "cpu").items():
        name, kind = key.split()
        rows.append(
            facts[name]
            | {"form": kind, "batch": batch, "median_ms": 1e3 * timing.wall_median, "least_ms": 1e3 * timing.wall_min}
            | {"cpu_ms": 1e3 * timing.cpu_min}
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table; times relative to EMO-1M's in the same form."""
    own = {row["form"]: row["cpu_ms"] for row in rows if row["network"] == "emo_1m"}
    print(
        f"{'network':24}{'px':>5}{'M par':>8}{'M mac':>8}  {'form':14}"
        f"{'median':>9}{'least':>9}{'cpu ms':>9}{'/ EMO-1M':>10}"
    )
    for row in sorted(rows, key=lambda row: (row["form"], row["cpu_ms"])):
        relative = f"{row['cpu_ms'] / own[row['form']]:.2f}" if row["form"] in own else ""
        print(
            f"{row['network']:24}{row['size']:5}{row['parameters'] / 1e6:8.2f}{row['multiply_adds'] / 1e6:8.0f}  "
            f"{row['form']:14}{row['median_ms']:9.2f}{row['least_ms']:9.2f}{row['cpu_ms']:9.2f}{relative:>10}"
        )


def goals(rows: list[dict[str, Any]]) -> None:
    """Print the goals and whether they are met, by CPU time of one picture."""
    cpu = {(row["network"], row["form"]): row["cpu_ms"] for row in rows}
    best = min(("compiled", "deployed"), key=lambda kind: cpu.get(("emo_1m", kind), float("inf")))
    told = lambda met: "met" if met else "missed"  # noqa: E731
    eager, fast = cpu["emo_1m", "eager"], cpu["emo_1m", best]
    print(f"EMO-1M {best}: {eager / fast:.2f} times as fast as eager (goal 1.5: {told(eager >= 1.5 * fast)})")
    plain = cpu["emo_1m", "transcription"]
    print(
        f"EMO-1M eager: {plain / eager:.2f} times as fast as the transcription (goal 1.2: {told(plain >= 1.2 * eager)})"
    )
    if ("edgenext_xx_small", best) in cpu:
        other = cpu["edgenext_xx_small", best]
        print(f"EMO-1M {best}: {fast / other:.2f} of edgenext_xx_small's time (goal below 1: {told(fast < other)})")


def plot(rows: list[dict[str, Any]], accuracy: dict[str, float], path: Path) -> None:
    """Draw accuracy against the time of one picture, a point a network."""
    import altair

    data = [row | {"accuracy": accuracy[row["network"]]} for row in rows if row["network"] in accuracy]
    base = altair.Chart(altair.Data(values=data)).encode(
        x=altair.X("cpu_ms:Q", title="CPU ms of one picture", scale=altair.Scale(type="log")),
        y=altair.Y("accuracy:Q", title="Top-1", scale=altair.Scale(zero=False)),
        color=altair.Color("form:N", title="form"),
    )
    (base.mark_point(filled=True, size=80) + base.mark_text(dy=-10).encode(text="network:N")).save(str(path))


def accuracies(folder: Path) -> dict[str, float]:
    """Return the mean Top-1 of each backbone among stored results of one data set; ablations do not count."""
    found: dict[str, list[float]] = {}
    for file in sorted(folder.rglob("result.json")):
        result = json.loads(file.read_text())
        config, score = result["run"]["config"], result["scores"].get("top1")
        whole = config.get("attention", True) and config.get("depthwise", True)
        if result["status"] == "ok" and result["run"]["split"] == "test" and whole and score is not None:
            found.setdefault(config.get("backbone", ""), []).append(score)
    return {name: sum(values) / len(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument(
        "--batch", type=int, default=0, help="size of the batch beside one picture; 0: one picture only"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the deployed forms too")
    parser.add_argument("--equal", action="store_true", help="all networks at 224 px too")
    parser.add_argument("--networks", nargs="+", default=list(PEERS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="accuracy against time, a picture")
    parser.add_argument("--accuracy", type=Path, help="folder of results of one data set, for --plot")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with_compiler = given.compile and compiler() is not None
    print(f"torch {torch.__version__}, {platform.machine()}, {given.threads} threads, compiler {compiler()}")
    rows: list[dict[str, Any]] = []
    for batch in (1, given.batch) if given.batch else (1,):
        for native in (True, False) if given.equal else (True,):
            print(f"\nbatch {batch}, {'native sizes' if native else 'all at 224 px'}")
            part = measure(given.networks, native, batch, given.repeats, with_compiler)
            show(part)
            rows += [row | {"native": native, "threads": given.threads} for row in part]
            if batch == 1 and native and "emo_1m" in given.networks:
                goals(part)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1))
    if given.plot is not None:
        plot([row for row in rows if row["batch"] == 1 and row["native"]], accuracies(given.accuracy), given.plot)


if __name__ == "__main__":
    main()
