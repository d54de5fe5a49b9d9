"""A sound file changed at random: what is read or scored stays the same, or one line says what is wrong.

With ``--slow`` every reader and every ``score`` of signals and graphs is tried on 2,000 changes. Changes that make
another sound file (another number in the place of one) are not drawn: nobody can tell them.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from benchsuite.core.errors import UserError

pytest.importorskip("wfdb")

from support import forall

from benchsuite.datasets.ecg import reader as ecg
from benchsuite.datasets.ecg.generated import load_generated as generated_ecg
from benchsuite.datasets.fairness_graphs import reader as graphs
from benchsuite.datasets.fairness_graphs.generated import load_synthetic
from benchsuite.datasets.fairness_graphs.rules import similarity_edges
from benchsuite.datasets.pcg import reader as pcg
from benchsuite.datasets.pcg.generated import load_generated as generated_pcg
from benchsuite.tasks.cardiac_signals import heart_sound_judge, qrs_judge
from benchsuite.tasks.fair_distillation import judge as fair_judge

CASES = pytest.mark.parametrize("cases", [30, pytest.param(2000, marks=pytest.mark.slow)])

# What a cell may become: never a number that could stand in its place.
NO_VALUES = (
    "",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "none",
    "x",
    "0,5",
    "1_0",
    "1e999",
    "0x1",
    "-7",
    "1.5e-3",
    "9" * 30,
    "٣",
    "'",
)
SAME_LINES = ("\n", "\r\n", "\r")


@dataclass(frozen=True)
class Change:
    """One change of a file: what is done to it, and numbers that say where."""

    what: str
    place: int
    other: int
    value: str


CHANGES = st.builds(Change, st.sampled_from([
    "cell", "cell", "cell", "number", "swap rows", "double a row", "drop a row", "swap columns", "double a column",
    "drop a column", "rename a column", "add a column", "no header", "cut", "line ends", "mark", "encoding", "quotes",
    "blank line", "trailing lines", "separator", "blanks", "byte", "long row",
]), st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(NO_VALUES))  # fmt: skip


def outcome_of(read: Callable[[], Any]) -> Any:
    """Return what a reader returns, or None where it refuses in one line."""
    try:
        return read()
    except UserError as error:
        assert str(error)
        assert "\n" not in str(error)
        return None


def as_csv(rows: list[list[str]], quoting: Any = csv.QUOTE_MINIMAL, separator: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting, delimiter=separator).writerows(rows)
    return text.getvalue()


def changed_table(text: str, change: Change) -> bytes:
    """Return a comma-separated table after a change that leaves it what it is, or breaks it."""
    rows = list(csv.reader(io.StringIO(text)))
    row = 1 + change.place % (len(rows) - 1)
    other = 1 + change.other % (len(rows) - 1)
    column = change.other % len(rows[0])
    second = (column + 1) % len(rows[0])
    match change.what:
        case "cell":
            rows[row][column] = change.value
        case "number":
            rows[row][column] += ".0" if rows[row][column].lstrip("-").isdigit() else ""
        case "swap rows":
            rows[row], rows[other] = rows[other], rows[row]
        case "double a row":
            rows.insert(other, rows[row])
        case "drop a row":
            del rows[row]
        case "swap columns":
            for cells in rows:
                cells[column], cells[second] = cells[second], cells[column]
        case "double a column":
            rows = [[*cells, cells[column]] for cells in rows]
        case "drop a column":
            rows = [cells[:column] + cells[column + 1 :] for cells in rows]
        case "rename a column":
            rows[0][column] = change.value
        case "add a column":
            rows = [["x", *rows[0]], *([str(i), *cells] for i, cells in enumerate(rows[1:]))]
        case "no header":
            del rows[0]
        case "long row":
            rows[row].append(change.value)
        case "blanks":
            rows[row][column] = f" {rows[row][column]} "
        case "blank line":
            rows.insert(row, [])
    separator = ";\t|"[change.place % 3] if change.what == "separator" else ","
    content = as_csv(rows, csv.QUOTE_ALL if change.what == "quotes" else csv.QUOTE_MINIMAL, separator)
    return changed_text(content, change)


def changed_text(text: str, change: Change) -> bytes:
    """Return any text after a change of its characters."""
    content = text.encode()
    match change.what:
        case "cut":
            return content[: change.place % len(content)]
        case "line ends":
            return text.replace("\n", SAME_LINES[change.place % 3]).encode()
        case "mark":
            return text.encode("utf-8-sig")
        case "encoding":
            return text.encode(("utf-16", "utf-16-le", "utf-32")[change.place % 3])
        case "trailing lines":
            return content + b"\n" * (change.place % 3) + b"\r\n"
        case "byte":
            place = change.place % len(content)
            return content[:place] + bytes([128 + change.other % 128]) + content[place + 1 :]
    return content


# --- score


@CASES
def test_probabilities(cases: int, tmp_path: Path) -> None:
    graph = load_synthetic(None, 0)
    rng = np.random.default_rng(0)
    one = rng.random(len(graph.test))
    sound, path = tmp_path / "sound.csv", tmp_path / "p.csv"
    fair_judge.write_predictions(sound, graph.test, np.column_stack([1 - one, one]))
    text = sound.read_text()
    control = fair_judge.judge(graph, graph.test, fair_judge.read_predictions(sound, graph)).scores

    def check(change: Change) -> None:
        path.write_bytes(changed_table(text, change))
        found = outcome_of(lambda: fair_judge.read_predictions(path, graph))
        if found is not None and change.what == "cut":  # of the last number only digits are gone, and it still fits
            assert np.allclose(found, fair_judge.read_predictions(sound, graph), atol=fair_judge.SUM_TOLERANCE)
        elif found is not None:
            assert fair_judge.judge(graph, graph.test, found).scores == control

    forall(cases, CHANGES, check)


@CASES
def test_states(cases: int, tmp_path: Path) -> None:
    records = generated_pcg(None, 0).records[:3]
    sound, path = tmp_path / "sound.csv", tmp_path / "p.csv"
    heart_sound_judge.write(sound, records, [record.states for record in records])
    text = sound.read_text()

    def check(change: Change) -> None:
        path.write_bytes(changed_table(text, change))
        found = outcome_of(lambda: heart_sound_judge.read(path, records))
        assert found is None or all(np.array_equal(found[r.name], r.states) for r in records)

    forall(cases, CHANGES, check)


@CASES
def test_detections(cases: int, tmp_path: Path) -> None:
    """A file whose last rows are missing is one of fewer detections: what it holds is read, and nothing else."""
    records = generated_ecg(None, 0).records[:3]
    sound, path = tmp_path / "sound.csv", tmp_path / "p.csv"
    qrs_judge.write(sound, records, [record.beats for record in records])
    text = sound.read_text()

    def check(change: Change) -> None:
        content = changed_table(text, change)
        path.write_bytes(content)
        found = outcome_of(lambda: qrs_judge.read(path, records))
        if found is None:
            return
        for record in records:
            if change.what in ("cut", "drop a row"):
                held = [line.split(b",")[1] for line in content.splitlines() if line.startswith(record.name.encode())]
                assert found[record.name].tolist() == [int(sample) for sample in held if sample]
            else:
                assert np.array_equal(found[record.name], record.beats)

    forall(cases, CHANGES, check)


# --- readers


def changed_file(path: Path, change: Change, bits: bool = True) -> None:
    """Change a file of bytes: cut, empty, longer, missing, or with ``bits`` one bit turned in its first kilobyte."""
    content = path.read_bytes()
    match change.place % 5:
        case 0:
            path.write_bytes(content[: change.other % len(content)])
        case 1:
            path.write_bytes(b"")
        case 2:
            path.write_bytes(content + b"\x01" * (1 + change.other % 9))
        case 3 if bits:
            place = change.other % min(len(content), 1024)
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << change.place % 8]) + content[place + 1 :])
        case 4:
            path.unlink()


def replaced(source: Path, folder: Path) -> None:
    """Make ``folder`` a copy of ``source``."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)


def changed_words(text: str, change: Change) -> bytes:
    """Return a text of words and lines after a change of a word, of the order of lines, or of its characters."""
    lines = [line.split() for line in text.splitlines()]
    row, other = change.place % len(lines), change.other % len(lines)
    match change.what:
        case "cell" | "rename a column":
            lines[row][change.other % len(lines[row])] = change.value
        case "swap rows":
            lines[row], lines[other] = lines[other], lines[row]
        case "double a row" if lines[row] != lines[other]:
            lines.insert(other, lines[row])
        case "drop a column":
            del lines[row][change.other % len(lines[row])]
        case "blank line":
            lines.insert(row, [])
        case "long row":
            lines[row].append(change.value or "7")
    return changed_text("\n".join(" ".join(words) for words in lines) + "\n", change)


@CASES
@pytest.mark.parametrize(
    ("source", "annotator"),
    [("svdb", "atr"), ("incartdb", "atr"), ("qtdb", "atr"), ("nstdb", "atr"), ("ludb", "i")],
)
def test_wfdb_records(cases: int, source: str, annotator: str, tmp_path: Path) -> None:
    import wfdb

    load = getattr(ecg, f"load_{source}")

    sound, folder = tmp_path / "sound", tmp_path / "changed"
    sound.mkdir()
    signals = np.random.default_rng(0).normal(size=(1000, 2))
    wfdb.wrsamp("r1", 100, ["mV"] * 2, ["I", "II"], p_signal=signals, fmt=["16"] * 2, write_dir=str(sound))
    wfdb.wrann("r1", annotator, 50 + 100 * np.arange(9), symbol=["N", "!", "+", "[", "]", "V", "N", "N", "N"],
               fs=100, write_dir=str(sound))  # fmt: skip
    (control,) = load(sound, 0).records
    header = (sound / "r1.hea").read_text()
    gains = [word for word in header.split() if "/mV" in word]

    def check(drawn: tuple[Change, str]) -> None:
        change, kind = drawn
        replaced(sound, folder)
        if kind == ".hea":
            (folder / "r1.hea").write_bytes(changed_words(header, change))
        else:
            changed_file(folder / f"r1{kind}", change)
        found = outcome_of(lambda: load(folder, 0).records)
        if found is None or (kind == f".{annotator}" and change.place % 5 == 3):  # a turned bit is another annotation
            return
        (record,) = found
        assert np.array_equal(record.beats, control.beats)
        assert (record.fs, record.fibrillation) == (control.fs, control.fibrillation)
        described = (folder / "r1.hea").read_bytes().decode("utf-8-sig").split()
        if gains != [word for word in described if "/mV" in word]:  # another gain is another sound header
            return
        assert {leads.tobytes() for leads in record.signals} == {leads.tobytes() for leads in control.signals}

    forall(cases, st.tuples(CHANGES, st.sampled_from([".hea", ".hea", ".dat", f".{annotator}"])), check)


ARRAYS = st.sampled_from([
    lambda a: a, lambda a: a.T, lambda a: a.ravel(), lambda a: a.astype(np.float64), lambda a: a.astype(str),
    lambda a: a.astype(complex), lambda a: a > 0, lambda a: a.astype(np.float64) + 0.25, lambda a: a[..., None],
    lambda a: np.column_stack([a, a]), lambda a: a[: len(a) // 2], lambda a: a[:0],
    lambda a: np.where(a == a.max(), np.nan, a),
    lambda a: a.astype(np.float64) * np.inf, lambda a: np.concatenate([a, a]), lambda a: a[::-1], lambda a: -1 - a,
    lambda a: a + 10**6, lambda a: a.astype(object), lambda a: np.array(7),
])  # fmt: skip


@CASES
@pytest.mark.filterwarnings("ignore")
def test_cpsc_segments(cases: int, tmp_path: Path) -> None:
    from scipy.io import savemat

    for folder in ("data", "ref"):
        (tmp_path / folder).mkdir()
    places = {"ecg": tmp_path / "data/data_00001.mat", "R_peak": tmp_path / "ref/R_00001.mat"}
    arrays = {"ecg": np.sin(np.arange(5000.0))[:, None], "R_peak": np.array([[300], [900]])}
    for key, path in places.items():
        savemat(path, {key: arrays[key]})
    (control,) = ecg.load_cpsc2019(tmp_path, 0).records

    def check(drawn: tuple[str, Any, str, bool, Change]) -> None:
        key, alter, name, broken, change = drawn
        for other, path in places.items():
            savemat(path, {other: arrays[other]})
        if broken:
            changed_file(places[key], change, bits=False)  # SciPy's reader ends the process on some turned bits
        else:
            savemat(places[key], {name: alter(arrays[key])})
        found = outcome_of(lambda: ecg.load_cpsc2019(tmp_path, 0).records)
        if found is not None and key == "R_peak":
            assert np.array_equal(found[0].signals, control.signals)
            assert broken or np.array_equal(found[0].beats, control.beats) or alter_keeps(alter, arrays[key])
        elif found is not None:
            assert np.array_equal(found[0].beats, control.beats)
            assert broken or found[0].signals.shape == control.signals.shape

    def alter_keeps(alter: Any, array: Any) -> bool:
        """Tell whether the altered array is a sound list of its own: what it holds is then what counts."""
        return bool(np.asarray(alter(array)).size < array.size)

    names = st.sampled_from(["ecg", "ecg", "R_peak", "R_peak", "x"])
    forall(cases, st.tuples(st.sampled_from(["ecg", "R_peak"]), ARRAYS, names, st.booleans(), CHANGES), check)


@CASES
def test_circor_recordings(cases: int, tmp_path: Path) -> None:
    from scipy.io import wavfile

    sound, folder = tmp_path / "sound", tmp_path / "changed"
    sound.mkdir()
    wavfile.write(sound / "7_AV.wav", 1000, np.random.default_rng(0).integers(-9000, 9000, 2000).astype(np.int16))
    (sound / "7_AV.hea").write_text("7_AV 1 1000 2000\n7_AV.wav 16+44 1 16 0 0 0 0 AV\n")
    rows = [(0.2, 0.3, 1), (0.3, 0.5, 2), (0.5, 0.6, 3), (0.6, 1.0, 4), (1.0, 1.2, 1), (1.2, 1.9, 0)]
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    (sound / "7_AV.tsv").write_text(text)
    (control,) = pcg.load_circor2022(sound, 0).records
    header = (sound / "7_AV.hea").read_text()

    def check(drawn: tuple[Change, str]) -> None:
        change, kind = drawn
        replaced(sound, folder)
        if kind == ".wav":
            changed_file(folder / "7_AV.wav", change)
        else:
            changed = changed_words(header if kind == ".hea" else text, change)
            (folder / f"7_AV{kind}").write_bytes(changed)
        found = outcome_of(lambda: pcg.load_circor2022(folder, 0).records)
        if found is None:
            return
        (record,) = found
        assert record.fs == control.fs
        if kind != ".wav" or change.place % 5 != 3:  # a turned bit is another sound
            assert np.array_equal(record.signal, control.signal)
        if kind == ".tsv" and change.what in ("cell", "rename a column") and change.value == "1.5e-3":
            return  # another time
        if kind == ".tsv" and change.what == "cut":  # fewer rows are fewer annotations, never others
            assert np.isin(record.states[record.states != control.states], pcg.UNLABELLED).all()
        else:
            assert np.array_equal(record.states, control.states)

    forall(cases, st.tuples(CHANGES, st.sampled_from([".hea", ".wav", ".tsv", ".tsv"])), check)


@CASES
@pytest.mark.filterwarnings("ignore")
def test_challenge_recordings(cases: int, tmp_path: Path) -> None:
    from scipy.io import savemat, wavfile

    wav, labels = tmp_path / "a0001.wav", tmp_path / "a0001_StateAns.mat"
    sound = np.random.default_rng(0).integers(-9000, 9000, 4000).astype(np.int16)
    names = ["S1", "systole", "S2", "diastole", "S1", "(N"]
    rows = list(zip([401, 601, 1001, 1201, 1601, 2001], names, strict=True))

    def write(table: list[tuple[Any, Any]]) -> None:
        wavfile.write(wav, 2000, sound)
        cells = np.empty((len(table), 2), dtype=object)
        for i, row in enumerate(table):
            cells[i] = row
        savemat(labels, {"state_ans": cells})

    write(rows)
    (control,) = pcg.load_cinc2016(tmp_path, 0).records

    def check(drawn: tuple[str, Change]) -> None:
        where, change = drawn
        row, other = change.place % len(rows), change.other % len(rows)
        table = list(rows)
        match where:
            case "sample":
                odd = [float("nan"), -7, 0, 601.5, 10**6, "601", "x", np.array([[601, 1001]])]
                table[row] = (odd[change.other % len(odd)], table[row][1])
            case "state":
                table[row] = (table[row][0], change.value)
            case "swap":
                table[row], table[other] = table[other], table[row]
            case "drop":
                del table[row]
        write(table)
        if where in ("wav", "mat"):
            changed_file(wav if where == "wav" else labels, change, bits=where == "wav")
        found = outcome_of(lambda: pcg.load_cinc2016(tmp_path, 0).records)
        if found is None:
            return
        (record,) = found
        if where != "wav" or change.place % 5 != 3:  # a turned bit is another sound
            assert np.array_equal(record.signal, control.signal)
        if where == "drop":
            assert record.states.shape == control.states.shape
        else:
            assert np.array_equal(record.states, control.states)

    forall(cases, st.tuples(st.sampled_from(["sample", "state", "swap", "drop", "wav", "mat"]), CHANGES), check)


@CASES
@pytest.mark.filterwarnings("ignore")
def test_springer_files(cases: int, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays = {
        "pcg": np.sin(np.arange(2000.0)),
        "fs": np.array([1000]),
        "r_peaks_50hz": np.array([11, 51]),
        "t_ends_50hz": np.array([31, 71]),
    }
    np.savez(path, **arrays)
    (control,) = pcg.load_springer(tmp_path, 0).records

    def check(drawn: tuple[str, Any, bool, Change]) -> None:
        key, alter, broken, change = drawn
        np.savez(path, **(arrays if broken else arrays | {key: alter(arrays[key])}))
        if broken:
            changed_file(path, change)
        found = outcome_of(lambda: pcg.load_springer(tmp_path, 0).records)
        if found is None or (not broken and np.asarray(alter(arrays[key])).size != arrays[key].size):
            return
        (record,) = found
        assert record.fs == control.fs
        assert key == "pcg" or np.array_equal(record.signal, control.signal)
        assert all(np.array_equal(record.events[sound], control.events[sound]) for sound in pcg.SOUNDS)

    forall(cases, st.tuples(st.sampled_from([*arrays]), ARRAYS, st.booleans(), CHANGES), check)


@CASES
@pytest.mark.filterwarnings("ignore")
def test_graphs(cases: int, tmp_path: Path) -> None:
    sound, folder = tmp_path / "sound", tmp_path / "changed"
    (sound / "split").mkdir(parents=True)
    rng = np.random.default_rng(0)
    table = rng.integers(0, 2, (40, 19))
    columns = [*graphs.BAIL_COLUMNS, "RECID"]
    text = as_csv([columns, *table.astype(str).tolist()])
    (sound / "bail.csv").write_text(text)
    edges = similarity_edges(table[:, :18].astype(float), 0.6)
    edge_text = "".join(f"{a} {b}\n" for a, b in edges.tolist())
    (sound / "bail_edges.txt").write_text(edge_text)
    splits = {"train": np.arange(10), "val": np.arange(10, 20), "test": np.arange(20, 40)}
    for part, nodes in splits.items():
        np.save(sound / f"split/{part}_split.npy", nodes)
    control = graphs.load_bail(sound, 0)

    def check(drawn: tuple[str, Change, Any]) -> None:
        where, change, alter = drawn
        replaced(sound, folder)
        if where == "table":
            (folder / "bail.csv").write_bytes(changed_table(text, change))
        elif where == "edges":
            (folder / "bail_edges.txt").write_bytes(changed_words(edge_text, change))
        elif where == "archive":
            (folder / "bail_edges.txt").unlink()
            np.savez(folder / "bail_edges.npz", edges=alter(edges))
        elif where == "split":
            np.save(folder / "split/test_split.npy", alter(splits["test"]))
        else:
            changed_file(folder / "split/test_split.npy", change)
        found = outcome_of(lambda: graphs.load_bail(folder, 0))
        if found is None:
            return
        other_table = where == "table" and change.what in ("swap rows", "cell")
        if other_table or (where == "edges" and change.what == "cut"):
            assert found.features.shape == control.features.shape  # other rows or numbers, none dropped
        elif where in ("split", "bytes"):
            assert set(found.test.tolist()) <= set(range(40))
            assert found.edge_index.tobytes() == control.edge_index.tobytes()
        else:
            assert found.content_hash() == control.content_hash()

    kinds = st.sampled_from(["table", "table", "edges", "edges", "archive", "split", "bytes"])
    forall(cases, st.tuples(kinds, CHANGES, ARRAYS), check)
