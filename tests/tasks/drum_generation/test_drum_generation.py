"""Drum generation: structure of grooves by plain loops, what is handed out and judged, and files made elsewhere."""

from __future__ import annotations

import contextlib
import itertools
import json
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

pytest.importorskip("rapidfuzz")
pytest.importorskip("pretty_midi")

import pretty_midi
from support import context

from benchsuite.core.errors import ConfigError, DataError, InvalidPrediction
from benchsuite.datasets.drums.drumroll import SILENT, bars_of, record_of, text_of
from benchsuite.datasets.drums.generated import load_generated
from benchsuite.datasets.drums.midi import write_midi
from benchsuite.datasets.drums.recordings import load_groove
from benchsuite.metrics import drum_grooves as g
from benchsuite.tasks.drum_generation.contract import DrumComposer, DrumGenerationProtocol, Drummer, TrainingGrooves
from benchsuite.tasks.drum_generation.judge import (
    Human,
    Played,
    check_played,
    distance_floor,
    judge,
    read,
    summary,
    write,
)
from benchsuite.tasks.drum_generation.pictures import sound
from benchsuite.tasks.drum_generation.task import DrumGeneration

LINE = st.text("o-", min_size=6, max_size=6)
BAR = st.lists(LINE, min_size=16, max_size=16).map(tuple)
# Bars of few kinds, so that equal ones occur.
BARS = st.lists(
    st.sampled_from([(SILENT,) * 16, ("---o--",) * 16, ("--o---", *(SILENT,) * 15), ("x", "oo")]), max_size=8
)


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


# --- metrics ----------------------------------------------------------------------------------------------


def test_a_bars_text_has_a_blank_line_between_lines() -> None:
    assert g.bar_text(("ab", "c")) == "ab\n\nc\n"
    assert len(g.bar_text((SILENT,) * 16)) == 127


@given(st.lists(BAR, min_size=2, max_size=4))
@settings(max_examples=6)
def test_stability_is_the_distance_to_the_nearer_neighbour(bars: list[g.Bar]) -> None:
    texts = ["\n".join(line + "\n" for line in bar) for bar in bars]
    steps = [levenshtein(a, b) for a, b in itertools.pairwise(texts)]
    assert g.stability(bars) == [min(steps[i], steps[i + 1]) for i in range(len(bars) - 2)]


def test_edits_may_shift_lines() -> None:
    steady = tuple("o-----" if number % 2 else SILENT for number in range(16))
    shifted = (*steady[1:], SILENT)
    assert g.stability([steady, shifted, steady]) == [16]  # twelve cells more differ place by place


@given(st.lists(st.integers(0, 60), min_size=2, max_size=14))
def test_two_clusters_are_the_best_split(values: list[int]) -> None:
    gap, spread, midpoint = g.two_clusters(values)
    best = None
    for bits in range(2 ** min(len(values), 8)):
        low = [v for k, v in enumerate(values[:8]) if bits >> k & 1]
        high = [v for k, v in enumerate(values[:8]) if not bits >> k & 1]
        if low and high:
            squares = np.var(low) * len(low) + np.var(high) * len(high)
            best = squares if best is None else min(best, squares)
    if len(values) <= 8:
        ordered = np.sort(values)
        labels = np.abs(ordered - midpoint)
        assert labels.shape == ordered.shape
        low = ordered[ordered < midpoint] if gap > 0 else ordered
        high = ordered[ordered >= midpoint] if gap > 0 else ordered
        squares = (np.var(low) * len(low) + np.var(high) * len(high)) if gap > 0 else 0.0
        assert squares == pytest.approx(best, abs=1e-9)
        if gap > 0:
            expected = np.concatenate([np.abs(low - low.mean()), np.abs(high - high.mean())]).mean()
            assert spread == pytest.approx(expected)
            assert gap == pytest.approx(high.mean() - low.mean())


def test_clusters_of_one_value_and_of_equal_ones() -> None:
    assert g.two_clusters([3]) is None
    assert g.two_clusters([4, 4, 4]) == (0.0, 0.0, 4.0)
    assert g.two_clusters([0, 0, 10, 12]) == (11.0, 0.5, 5.5)


NUMBERS = st.lists(st.integers(0, 50), min_size=1, max_size=20)


@given(NUMBERS, NUMBERS)
def test_distances_of_samples(a: list[int], b: list[int]) -> None:
    assert g.wasserstein(a, b) == pytest.approx(wasserstein_distance(a, b), abs=1e-9)
    shared = sum(min(a.count(v) / len(a), b.count(v) / len(b)) for v in set(a))
    assert g.overlap(a, b) == pytest.approx(shared)
    values = sorted(set(a + b))
    p, q = (np.array([x.count(v) + 0.5 for v in values]) for x in (a, b))
    p, q = p / p.sum(), q / q.sum()
    assert g.divergence(a, b) == pytest.approx(float((p * np.log2(p / q)).sum()))


def test_distances_of_nothing_are_undefined() -> None:
    assert g.wasserstein([], [1]) is g.overlap([1], []) is g.divergence([], []) is None


@given(BARS)
def test_repetition_by_plain_loops(bars: list[g.Bar]) -> None:
    sounding = [bar for bar in bars if any("o" in line for line in bar)]
    pairs = [(a, b) for a, b in itertools.pairwise(bars) if a in sounding and b in sounding]
    assert g.identical_neighbours(bars) == (sum(a == b for a, b in pairs), len(pairs))
    assert g.unique_ratio(bars) == (len(set(sounding)) / len(sounding) if sounding else None)


def test_back_beat_tom_and_fill() -> None:
    beat = tuple("--o---" if number in (4, 12) else SILENT for number in range(16))
    assert g.has_back_beat(beat)
    assert not g.has_back_beat(beat[:12])
    assert not g.has_back_beat((*beat[:12], SILENT, *beat[13:]))
    tom = ("-----o", *beat[1:])
    assert g.has_tom(tom)
    assert not g.has_tom(beat)
    busy = ("oo-oo-",) * 16
    assert g.fills([beat, beat, beat, busy, beat, beat]) == [False, False, False, True, False, False]
    assert g.fills([beat, beat, beat, tom]) == [False, False, False, True]
    assert g.fills([beat] * 4) == [False] * 4


def test_muspys_rates() -> None:
    lines = ["o-----", SILENT, "oo----", SILENT]
    assert g.drum_in_pattern_rate(lines, "duple") == 1.0
    assert g.drum_in_pattern_rate(lines, "triple") == pytest.approx(1 / 3)  # only what is on the beat
    assert g.drum_pattern_consistency(lines) == 1.0
    assert g.drum_in_pattern_rate([SILENT], "duple") is None
    one, two = ("o-----", *(SILENT,) * 15), ("-o----", "o-----", *(SILENT,) * 14)
    assert g.groove_consistency([one, two]) == pytest.approx(1 - 1 / 16)
    assert g.groove_consistency([one, two, (SILENT,) * 16]) == pytest.approx(1 - 1 / 16)
    assert g.groove_consistency([one, (SILENT,) * 16]) is None


# --- the judge --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Any:
    return load_generated(None, 0)


@pytest.fixture(scope="module")
def human(data: Any) -> Human:
    records = [record_of(r.name, r.lines) for r in data.of("test")][:6]
    bars = {bar: 1 for r in data.of("train") for bar in bars_of(list(r.lines))}
    return Human(records, [r.lines for r in data.of("test")][:6], bars)


def played(human: Human, texts: list[str]) -> list[Played]:
    return check_played(texts, human.records)


def test_people_are_at_no_distance_from_themselves(human: Human) -> None:
    found = judge(played(human, [r.completion for r in human.records]), human, [10.0] * 6)
    for name, value in found.scores.items():
        if name.endswith("_difference") or name in ("stability_w1", "hit_rate_l1"):
            assert value == 0, name
        if name.endswith("_overlap") or name in ("line_validity", "separator_validity", "end_rate", "test_copy_rate"):
            assert value == pytest.approx(1), name
    assert found.scores["bits_per_character"] == 60 / sum(len(r.completion) for r in human.records)
    assert found.scores["stability_w1_floor"] > 0
    rows = {row["statistic"]: row for row in found.tables["statistics"]}
    whole = [bars_of(lines) for lines in human.whole]
    assert rows["mean_stability"]["human_official"] == np.mean([v for bars in whole for v in g.stability(bars)])


def test_repeaters_copiers_and_scribblers_play_no_new_bar(human: Human, data: Any) -> None:
    repeated = [(r.prompt.split("SEP\n")[1] + "SEP\n") * 14 for r in human.records]
    assert judge(played(human, repeated), human).scores["new_bar_rate"] == 0
    bar = next(bar for bar in human.training_bars if not g.is_silent(bar))
    copied = [(text_of(bar) + "SEP\n") * 14] * 6
    found = judge(played(human, copied), human).scores
    assert (found["new_bar_rate"], found["training_copy_rate"]) == (0, 1)
    assert judge(played(human, ["la la\n" * 224] * 6), human).scores["new_bar_rate"] == 0
    assert judge(played(human, [f"{SILENT}\n" * 224] * 6), human).scores["new_bar_rate"] == 0
    fresh = [
        "".join(
            f"{format(k * 16 + n, '06b')[-6:]}\n".replace("0", "-").replace("1", "o")
            for k in range(14)
            for n in range(16)
        )
    ] * 6
    assert judge(played(human, fresh), human).scores["new_bar_rate"] > 0


def test_a_new_bar_counts_once(human: Human) -> None:
    bar = "oooooo\n" + "o-o-o-\n" * 15
    found = judge(played(human, [(bar + "SEP\n") * 14] * 6), human).scores
    assert found["new_bar_rate"] == pytest.approx(1 / 14)
    half = judge(played(human, ["oooooo\n" * 15] * 6), human).scores
    assert half["new_bar_rate"] == 0  # not a whole bar
    assert half["completeness"] == 0


def test_validity_is_counted(human: Human) -> None:
    text = f"{SILENT}\n" * 16 + "SEP\n" + "oo\n" * 15 + "SEP\n" + "oooooo\n"
    found = judge(played(human, [text + "END"] * 3 + [text] * 3), human).scores
    assert found["line_validity"] == pytest.approx(17 / 32)
    assert found["separator_validity"] == 0.5
    assert found["completeness"] == pytest.approx(2 / 14)
    assert found["end_rate"] == 0.5
    assert judge(played(human, [""] * 6), human).undefined["line_validity"]


def test_silent_bars_count_in_the_official_statistics_only() -> None:
    bar, rest = ("---o--",) * 16, (SILENT,) * 16
    bars = [bar, bar, rest, rest, rest]
    assert summary([bars], active=True).zero_stability is None
    assert summary([bars], active=False).mean_stability == np.mean([0, 0, 0])
    busy = ("oooooo",) * 16
    loud = [bar, busy, bar, busy, ("o-o-o-",) * 16, rest, rest, rest]
    official, sounding = (summary([loud], active=active) for active in (False, True))
    assert official.mean_stability == np.mean(g.stability(loud))
    assert sounding.mean_stability == np.mean(g.stability(loud)[1:4]) != np.mean(g.stability(loud)[:4])


def test_the_floor_is_the_distance_of_halves() -> None:
    a = [("---o--",) * 16, ("-o----",) * 16]
    quiet, loud = [a[0]] * 6, [a[0], a[1]] * 3
    assert distance_floor([quiet, quiet]) == 0
    assert distance_floor([quiet, loud]) == np.mean(g.stability(loud))
    assert distance_floor([quiet]) is None


@pytest.mark.parametrize(
    ("completions", "message"),
    [(["a"], "list of 6"), ("abcdef", "list of 6"), ([1] * 6, "must be text"), (["o" * 100_001] * 6, "at most")],
)
def test_what_is_no_completion_is_refused(human: Human, completions: Any, message: str) -> None:
    with pytest.raises(InvalidPrediction, match=message):
        check_played(completions, human.records)


# --- the task ---------------------------------------------------------------------------------------------


class Watching(Drummer, DrumComposer):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def fit(self, grooves: TrainingGrooves, ctx: Any) -> Drummer:
        self.grooves = grooves
        return self

    def play(self, prompts: Any, ctx: Any) -> list[str]:
        self.prompts = list(prompts)
        self.order.append("play")
        return [f"{SILENT}\n" * 32] * len(prompts)

    def bits(self, records: Any, ctx: Any) -> list[float]:
        self.order.append("bits")
        return [1.0] * len(records)


def test_the_splits_are_kept_apart(data: Any, tmp_path: Path) -> None:
    seen = {}
    for split in ("test", "val"):
        drummer = Watching()
        DrumGeneration().evaluate(
            drummer, {"train": data, "test": data}, DrumGenerationProtocol(), context(tmp_path, split=split)
        )
        names = [{record.name for record in part} for part in (drummer.grooves.train, drummer.grooves.validation)]
        seen[split] = (*names, set(drummer.prompts))
        assert drummer.order == ["play", "bits"]
    assert (len(seen["test"][0]), len(seen["test"][1])) == (160, 24)
    assert (len(seen["val"][0]), len(seen["val"][1])) == (140, 20)
    assert not seen["val"][0] & seen["val"][1]
    prompts = {part: {record_of(r.name, r.lines).prompt for r in data.of(part)} for part in ("validation", "test")}
    assert (seen["test"][2], seen["val"][2]) == (prompts["test"], prompts["validation"])


def test_artifacts_can_be_heard_and_seen(data: Any, tmp_path: Path) -> None:
    ctx = context(tmp_path)
    DrumGeneration().evaluate(Watching(), {"train": data, "test": data}, DrumGenerationProtocol(), ctx)
    folder = tmp_path / "artifacts"
    assert (folder / "grooves.png").read_bytes()[:4] == b"\x89PNG"
    for name in ("groove-1.mid", "groove-1-human.mid", "groove-3.mid"):
        assert pretty_midi.PrettyMIDI(str(folder / name)).get_end_time() > 0
    with wave.open(str(folder / "groove-1.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
        assert file.getframerate() == 22_050
        assert 2 < len(samples) / 22_050 < 12
        assert samples.max() > 20_000


def test_a_missing_soundfont_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        sound(tmp_path / "x.wav", ["o-----"] * 16, str(tmp_path / "none.sf2"))


def test_other_metres_may_be_left_out(data: Any, tmp_path: Path) -> None:
    three = replace(
        data, recordings=tuple(replace(r, numerator=3) if n == 0 else r for n, r in enumerate(data.recordings))
    )
    counts = []
    for metres in ("all", "four-four"):
        drummer = Watching()
        found = DrumGeneration().evaluate(
            drummer, {"train": three, "test": three}, DrumGenerationProtocol(metres), context(tmp_path)
        )
        counts.append(len(drummer.grooves.train))
    assert counts == [160, 159]
    assert {"what": "recordings not in 4/4", "count": 1} in found.tables["left_out"]


def test_changed_answers_leave_prompts_and_training(data: Any) -> None:
    other = DrumGeneration().with_other_answers({"train": data, "test": data})["test"]
    assert (other.of("train"), other.of("validation")) == (data.of("train"), data.of("validation"))
    for before, after in zip(data.of("test"), other.of("test"), strict=True):
        a, b = record_of(before.name, before.lines), record_of(after.name, after.lines)
        assert a.prompt == b.prompt
        assert a.completion != b.completion


# --- files made elsewhere ---------------------------------------------------------------------------------


def test_files_and_folders_get_the_same_scores(data: Any, human: Human, tmp_path: Path) -> None:
    records = [record_of(r.name, r.lines) for r in data.of("test")]
    whole = [r for r in records if len(r.lines) == 256]
    human = replace(human, records=whole, whole=[r.lines for r in whole])
    mine = played(human, [r.completion for r in reversed(whole)])
    write(tmp_path / "found.json", mine)
    rows = json.loads((tmp_path / "found.json").read_text())
    (tmp_path / "found.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for kind in ("txt", "mid"):
        (tmp_path / kind).mkdir()
    for groove in mine:
        lines = [line for bar in groove.bars for line in bar]
        (tmp_path / "txt" / f"{groove.name}.txt").write_text(text_of(lines))
        (tmp_path / "mid" / f"{groove.name}.mid").write_bytes(write_midi(lines))
    expected = judge(mine, human).scores
    for name in ("found.json", "found.jsonl", "txt", "mid"):
        scores = judge(read(tmp_path / name, whole), human).scores
        marked = {"separator_validity", "end_rate"} if name in ("txt", "mid") else set()
        assert {k: v for k, v in scores.items() if k not in marked} == {
            k: v for k, v in expected.items() if k not in marked
        }
        assert all(scores[key] is None for key in marked)


def test_odd_files_give_one_line(human: Human, tmp_path: Path) -> None:
    path, records = tmp_path / "x.json", human.records
    rows = [{"name": r.name, "prompt": r.prompt, "completion": "END"} for r in records]
    cases: dict[str, Any] = {
        "needs a list": {},
        "entry 1: needs the texts": [1],
        "is missing": rows[:-1],
        "there twice": [*rows, rows[0]],
        "is no test groove": [*rows, {**rows[0], "name": "nobody"}],
        "another prompt": [{**rows[0], "prompt": "x"}, *rows[1:]],
        "longer than": [{**rows[0], "completion": "o" * 100_001}, *rows[1:]],
    }
    for message, content in cases.items():
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=message) as caught:
            read(path, records)
        assert "\n" not in str(caught.value)
    path.write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        read(path, records)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(DataError, match=r"holds no .txt or .mid"):
        read(folder, records)
    (folder / f"{records[0].name}.txt").write_text("oooooo\n")
    with pytest.raises(DataError, match="does not begin with the two bars"):
        read(folder, records)
    (folder / f"{records[0].name}.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is no text"):
        read(folder, records)


def test_score_takes_a_folder_on_the_command_line(cli: Any, data: Any) -> None:
    folder = cli.folder / "grooves"
    folder.mkdir()
    for recording in data.of("test"):
        lines = record_of(recording.name, recording.lines).lines
        (folder / f"{recording.name}.txt").write_text(text_of(lines))
    done = cli("score", "--task", "drum-generation", "--predictions", folder, "--json")
    assert done.code == 0, done.err
    assert done.json()["scores"]["stability_w1"] == 0
    (folder / "test_000.mid").write_bytes(b"RIFF")
    done = cli("score", "--task", "drum-generation", "--predictions", folder)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    done = cli("score", "--task", "drum-generation", "--predictions", cli.folder / "nowhere")
    assert (done.code, "no such file or folder" in done.err) == (2, True)


# --- published numbers, from the shipped recordings alone ----------------------------------------------------


@pytest.mark.real_data
def test_people_repeaters_and_coins_have_the_published_statistics(real_data: Path) -> None:
    groove = load_groove(real_data / "groove_midi", 0)
    recordings = groove.of("test")
    people = summary([bars_of(list(r.lines)) for r in recordings], active=False)
    assert people.mean_stability == pytest.approx(5.079, abs=6e-4)
    assert people.cluster_gap == pytest.approx(10.345, abs=6e-4)
    assert people.cluster_spread == pytest.approx(1.445, abs=6e-4)
    assert people.zero_stability == pytest.approx(0.303, abs=6e-4)
    records = [record_of(r.name, r.lines) for r in recordings]
    repeated = []
    for record in records:
        bars = bars_of(record.lines)
        repeated.append([bars[0], *[bars[1]] * 15])
    repeater = summary(repeated, active=False)
    assert (repeater.mean_stability, repeater.cluster_gap, repeater.cluster_spread) == (0, 0, 0)
    rng = np.random.default_rng(29)
    coins = [
        [tuple("".join("o-"[int(c)] for c in line) for line in rng.integers(2, size=(16, 6))) for _ in range(16)]
        for _ in records
    ]
    assert summary(coins, active=False).mean_stability == pytest.approx(40.4, abs=0.5)


@given(st.lists(st.integers(0, 60), min_size=2, max_size=14))
@settings(max_examples=20)
def test_official_clusters_are_scikit_learns(values: list[int]) -> None:
    from sklearn.cluster import KMeans

    points = np.array(values, dtype=float)[:, None]
    with pytest.warns() if len(set(values)) < 2 else contextlib.nullcontext():
        model = KMeans(2, n_init=1, random_state=0).fit(points)
    low, high = sorted(model.cluster_centers_[:, 0])
    gap, spread = g.official_clusters(values)
    assert gap == pytest.approx(high - low, abs=1e-9)
    assert spread == pytest.approx(
        np.sqrt(((points - model.cluster_centers_[model.labels_]) ** 2).sum(axis=1)).mean(), abs=1e-9
    )
    if len(set(values)) < 2:
        assert (gap, spread) == (0, 0)


@pytest.mark.real_data
def test_the_real_recordings_run_from_the_command_line(cli: Any, real_data: Path) -> None:
    run = (
        "run",
        "--task",
        "drum-generation",
        "--method",
        "repeat-bar",
        "--no-reference",
        "--seeds",
        "1",
        "--dataset",
        "groove",
    )
    done = cli(*run, "--data-root", real_data / "groove_midi", "--json")
    assert done.code == 0, done.err
    (path,) = cli.folder.glob("runs/drum-generation/groove/repeat-bar/*/attempt-1/result.json")
    result = json.loads(path.read_text())
    assert result["scores"]["stability_w1_official"] == pytest.approx(5.079, abs=6e-4)
    assert result["counts"]["training_records"] == 372
    left_out = {row["what"]: row["count"] for row in result["tables"]["left_out"]}
    assert left_out["recordings in other metres"] == 6
    assert left_out["notes: pedal hi-hat"] == 9302
    (cli.folder / "empty").mkdir()
    done = cli(*run, "--data-root", cli.folder / "empty")
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "info.csv" in done.err
