"""What the scripts under benchmarks/ read is what the suite stores."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "leaderboards" / "results"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_accuracies_of_backbones_are_those_of_the_published_table() -> None:
    pytest.importorskip("torch")
    found = script("bench_emo").accuracies(PUBLISHED / "image-classification" / "digits")
    with (ROOT / "leaderboards" / "image-classification.csv").open() as file:
        lines = [row for row in csv.DictReader(file) if (row["data"], row["metric"]) == ("digits", "top1")]
    rows = {row["label"]: float(row["mean"]) for row in lines}
    own = {"emo_nano": "emo-nano", "mobilenetv3_small_050": "mobilenetv3", "starnet_s050": "starnet"}
    assert found == pytest.approx({network: rows[label] for network, label in own.items()})


def test_the_front_is_drawn_of_one_network_whatever_else_lies_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    plot = script("plot_bitops")
    monkeypatch.setattr(sys, "argv", ["plot_bitops", str(PUBLISHED), str(tmp_path / "front.svg"), "mlp"])
    plot.main()
    lines = capsys.readouterr().out.splitlines()
    assert (tmp_path / "front.svg").stat().st_size > 1000
    rows = {line.split()[0]: line for line in lines if " n " in line}
    assert rows["sdq"].endswith("n 10")
    monkeypatch.setattr(sys, "argv", ["plot_bitops", str(PUBLISHED), str(tmp_path / "front.svg"), "resnet56"])
    with pytest.raises(SystemExit, match="no results of mixed-precision-quantization with the network 'resnet56'"):
        plot.main()
