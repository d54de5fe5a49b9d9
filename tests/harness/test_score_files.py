"""What `score` says of files of predictions: the same whatever the order, and the line of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchsuite.core.errors import InvalidPrediction, UserError
from benchsuite.core.registry import get_registry, load_object
from benchsuite.core.task import Outcome
from benchsuite.harness.judge import score_predictions
from benchsuite.harness.parts import with_seeds

pytest.importorskip("wfdb")

FAIR = ("fair-distillation", [], "")
QRS = ("qrs-detection", ["svdb"], "ecg-control")
SOUNDS = ("heart-sound-segmentation", ["circor2022"], "pcg-control")


@pytest.fixture
def score(tmp_path: Path, real_data: Path) -> Any:
    """Score a text, or a file of the odd inputs by its name."""

    def of(setting: tuple[str, list[str], str], content: str) -> Outcome:
        task, datasets, folder = setting
        path = real_data / "odd_inputs" / content
        if "\n" in content:
            path = tmp_path / "predictions.csv"
            path.write_text(content)
        roots = [str(real_data / "odd_inputs" / folder)] if folder else []
        return score_predictions(get_registry(), task, path, datasets, roots, 0, [])

    return of


def lines_of(real_data: Path, name: str) -> list[str]:
    return (real_data / "odd_inputs" / name).read_text().splitlines()


@pytest.mark.real_data
def test_the_sound_files_keep_their_values(score: Any) -> None:
    assert score(FAIR, "fair-predictions/control.csv").scores["accuracy"] == pytest.approx(0.962076, abs=1e-6)
    assert score(QRS, "qrs-predictions/control.csv").scores["f1_75ms"] == 1.0
    assert score(SOUNDS, "heart-sound-predictions/control.csv").scores["f1_60ms"] == 1.0


@pytest.mark.real_data
def test_columns_count_by_name_and_rows_in_any_order(score: Any, real_data: Path) -> None:
    sound = score(FAIR, "fair-predictions/control.csv").scores
    assert score(FAIR, "fair-predictions/swapped-columns.csv").scores == sound
    head, *rows = lines_of(real_data, "fair-predictions/control.csv")
    assert score(FAIR, "\n".join([head, *reversed(rows)])).scores == sound
    for setting, name in ((QRS, "qrs-predictions/control.csv"), (SOUNDS, "heart-sound-predictions/control.csv")):
        turned = "\n".join(",".join(reversed(line.split(","))) for line in lines_of(real_data, name))
        assert score(setting, turned).scores == score(setting, name).scores
    head, *rows = lines_of(real_data, "heart-sound-predictions/control.csv")
    assert score(SOUNDS, "\n".join([head, *reversed(rows)])).scores["f1_60ms"] == 1.0


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("setting", "name", "line", "becomes", "message"),
    [
        (FAIR, "fair", 3, "894,0.9900", "line 3: has 2 cells"),
        (FAIR, "fair", 3, "894,nan,0.01", "line 3: probability_0 is 'nan', needs a finite number"),
        (FAIR, "fair", 3, "894,1.5,-0.5", "line 3: probability_0 is 1.5, not in 0 .. 1"),
        (FAIR, "fair", 3, "894,0.5,0.4", "line 3: the probabilities of node 894 sum to 0.9"),
        (FAIR, "fair", 3, "770,0.5,0.5", "line 3: node 770 stands there twice"),
        (FAIR, "fair", 3, "-1,0.5,0.5", "line 3: node -1 is not a test node"),
        (FAIR, "fair", 3, "894.5,0.5,0.5", "line 3: node is '894.5', needs a whole number"),
        (FAIR, "fair", 3, "", "node 894 is missing"),
        (FAIR, "fair", 1, "node,probability_1,probability_2", "lacks the column probability_0"),
        (FAIR, "fair", 1, "node,probability_0,probability_0", "lacks the column probability_1"),
        (QRS, "qrs", 2, "r9,125", "line 2: 'r9' is no test record - "),
        (QRS, "qrs", 2, "r1,125.5", "line 2: sample is '125.5', needs a whole number"),
        (QRS, "qrs", 3, "r1,125", "line 3: sample 125 of record r1 follows 125"),
        (QRS, "qrs", 2, "r1,-3", "line 2: sample -3 lies outside the 15000 samples of record r1"),
        (QRS, "qrs", 75, "r1,15000", "line 75: sample 15000 lies outside"),
        (QRS, "qrs", 3, "r1,", "line 3: record r1 has an empty sample"),
        (QRS, "qrs", 2, "r1,", "line 3: record r1 has an empty sample"),
        (SOUNDS, "heart-sound", 2, "p1_AV,0,-1", "line 2: state -1 is none of 0 S1"),
        (SOUNDS, "heart-sound", 2, "p1_AV,0,4", "line 2: state 4 is none of 0 S1"),
        (SOUNDS, "heart-sound", 2, "p1_AV,-1,0", "line 2: frame -1 of record p1_AV is outside 0 .. 299"),
        (SOUNDS, "heart-sound", 2, "p1_AV,300,0", "line 2: frame 300 of record p1_AV is outside 0 .. 299"),
        (SOUNDS, "heart-sound", 3, "p1_AV,0,0", "line 3: frame 0 of record p1_AV stands there twice"),
        (SOUNDS, "heart-sound", 2, "p1_AV,0,0.5", "line 2: state is '0.5', needs a whole number"),
        (SOUNDS, "heart-sound", 2, "p3_AV,0,0", "line 2: 'p3_AV' is no test record - did you mean"),
        (SOUNDS, "heart-sound", 2, "", "p1_AV is incomplete: frame 0 is missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    score: Any, real_data: Path, setting: Any, name: str, line: int, becomes: str, message: str
) -> None:
    lines = lines_of(real_data, f"{name}-predictions/control.csv")
    lines[line - 1] = becomes
    with pytest.raises(UserError, match=message) as caught:
        score(setting, "\n".join(lines))
    assert "\n" not in str(caught.value)


@pytest.mark.real_data
def test_a_record_without_detections_is_said_to_have_none(score: Any) -> None:
    assert score(QRS, "record,sample\nr1,\n").scores["f1_75ms"] == 0.0
    with pytest.raises(UserError, match="has 0 rows below its header"):
        score(QRS, "record,sample\n")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("task", "data", "predictions", "message"),
    [
        (QRS, "ecg-control", "qrs-predictions/unsorted.csv", "line 3: sample 14525 of record r1 follows 14725"),
        (SOUNDS, "pcg-control", "heart-sound-predictions/state-1to4.csv", "line 28: state 4 is none of 0 S1"),
    ],
)
def test_the_command_ends_with_one_line(
    cli: Any, real_data: Path, task: Any, data: str, predictions: str, message: str
) -> None:
    odd = real_data / "odd_inputs"
    done = cli("score", "--task", task[0], "--dataset", task[1][0], "--data-root", odd / data,
               "--predictions", odd / predictions)  # fmt: skip
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_errors_for_authors_of_plugins_reach_a_user_as_one_line(monkeypatch: Any, tmp_path: Path) -> None:
    def refuse(*_: Any) -> Outcome:
        raise InvalidPrediction("states are\nwrong")

    path = tmp_path / "p.csv"
    path.write_text("x\n")
    registry = get_registry()
    monkeypatch.setattr(load_object(registry.task("fair-distillation").load), "score", refuse)
    with pytest.raises(UserError, match=r"p\.csv: states are wrong"):
        score_predictions(registry, "fair-distillation", path, [], [], 0, [])


def test_what_a_run_writes_of_a_record_without_detections_is_read_again(tmp_path: Path) -> None:
    from benchsuite.datasets.ecg.generated import load_generated
    from benchsuite.tasks.cardiac_signals.qrs_judge import read, write

    records = load_generated(None, 0).records[:2]
    write(tmp_path / "p.csv", records, [np.array([], dtype=np.int64), records[1].beats])
    found = read(tmp_path / "p.csv", records)
    assert [found[r.name].tolist() for r in records] == [[], records[1].beats.tolist()]


def test_a_runs_own_predictions_are_judged_on_its_own_draw(cli: Any) -> None:
    """Seed 2 drew other records than seed 0, which `score` without a run would take."""
    pytest.importorskip("sleepecg")
    cli("run", "--task", "qrs-detection", "--method", "sleepecg", "--no-reference", "--seeds", "2,", "--out", "runs")
    (result,) = cli("results", "list", "--json").json()
    name = result["fingerprint"][:16]
    again = cli("score", "--run", name, "--json")
    expected = {k: v for k, v in result["scores"].items() if k != "samples_per_second"}
    assert {k: v for k, v in again.json()["scores"].items() if k in expected} == expected
    (file,) = (cli.folder / result["path"]).parent.glob("artifacts/predictions.csv")
    other = cli("score", "--task", "qrs-detection", "--predictions", str(file), "--json")
    assert other.code == 2 or other.json()["scores"]["f1_75ms"] != expected["f1_75ms"]
    assert "draw of generated data: 2 (the seed of run" in cli("results", "show", name).out
    for wrong in (("--task", "qrs-detection"), ("--draw", "2"), ("--set", "task.lead=first")):
        refused = cli("score", "--run", name, *wrong)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "--run says task, data, draw and settings" in refused.err
    path = cli.folder / result["path"]
    stored = json.loads(path.read_text())
    stored["artifacts"]["predictions.other"] = stored["artifacts"].pop("predictions.csv")  # whatever a task's format
    path.write_text(json.dumps(stored))
    assert cli("score", "--run", name, "--json").json() == again.json()
    for nothing in ((), ("--task", "qrs-detection")):
        assert "nothing to judge: give --task NAME" in cli("score", *nothing).err


def test_a_task_that_splits_by_a_seed_gets_the_seeds() -> None:
    def plain(data: int) -> int:
        return data

    def splitting(data: int, seeds: dict[str, int]) -> tuple[int, dict[str, int]]:
        return data, seeds

    assert with_seeds(plain, 3, seeds={"split": 5}) == 3
    assert with_seeds(splitting, 3, seeds={"split": 5}) == (3, {"split": 5})
