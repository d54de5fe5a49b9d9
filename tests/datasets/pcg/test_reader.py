"""Readers of phonocardiograms on the real sample and on broken copies of it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.core.registry import get_registry, load_object

pytest.importorskip("wfdb")

from benchsuite.datasets.pcg import reader as pcg


@pytest.mark.real_data
def test_circor_sounds(real_data):
    records = pcg.load_circor2022(real_data / "pcg/circor2022", 0).records
    assert len(records) == 10
    assert {r.patient for r in records} == {"circor2022/85343", "circor2022/85345", "circor2022/9983"}
    assert sum(len(r.events[pcg.S1]) for r in records) == 109
    assert sum(len(r.events[pcg.S2]) for r in records) == 104
    by_name = {r.name: r for r in records}
    assert len(by_name["85343_AV"].events[pcg.S1]) == 11
    assert (by_name["9983_AV"].states[-800:] == pcg.UNLABELLED).all()


@pytest.mark.real_data
def test_springer_sounds(real_data):
    records = pcg.load_springer(real_data / "pcg/springer_example", 0).records
    assert len(records) == 5
    first = records[0]
    # R peak at frame 7 and end of T at 24, counted from 1.
    assert first.events[pcg.S1][0] == pytest.approx(6 + 0.061 * 50)
    assert first.events[pcg.S2][0] == 23.0
    centres = pcg.centres_of(first.states)
    assert np.abs(centres[pcg.S2] - first.events[pcg.S2]).max() <= 0.5
    assert np.abs(centres[pcg.S1] - first.events[pcg.S1]).max() <= 0.5


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "85343_AV.wav").unlink(), "85343_AV.wav is missing"),
        (lambda d: (d / "85343_AV.hea").unlink(), "85343_AV.hea is missing"),
        (lambda d: (d / "85343_AV.wav").write_bytes(b"RIFF"), "cannot be read"),
        (lambda d: (d / "85343_AV.tsv").write_text(""), "needs rows of start, end, state"),
        (lambda d: (d / "85343_AV.tsv").write_text("0\t1\t0\n"), "no heart sound"),
        (lambda d: (d / "85343_AV.tsv").write_text("0\t1\t7\n"), "unknown state 7"),
        (lambda d: (d / "85343_AV.tsv").write_text("2\t3\t1\n1\t2\t3\n"), "unsorted"),
        (lambda d: (d / "85343_AV.tsv").write_text("a b c\n"), "cannot be read"),
        (lambda d: (d / "85343_AV.hea").write_text("85343_AV 1 2000 74816\n85343_AV.wav 16 1 16 0 0 0 0 AV\n"), "2000"),
    ],
)
def test_broken_recordings_are_told_in_one_line(real_data, tmp_path, damage, message):
    for suffix in (".hea", ".wav", ".tsv"):
        shutil.copy(real_data / f"pcg/circor2022/85343_AV{suffix}", tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        pcg.load_circor2022(tmp_path, 0)
    assert "\n" not in str(caught.value)


def test_springer_at_another_rate(tmp_path):
    np.savez(tmp_path / "a.npz", pcg=np.zeros(100), fs=2000, r_peaks_50hz=[1], t_ends_50hz=[2])
    with pytest.raises(DataError, match="2000 Hz, needs 1000"):
        pcg.load_springer(tmp_path, 0)


def test_no_recordings(tmp_path):
    with pytest.raises(DatasetNotFound, match="holds no recordings"):
        pcg.load_circor2022(tmp_path, 0)
    with pytest.raises(DatasetNotFound, match="springer"):
        pcg.load_springer(tmp_path, 0)


def test_runs_and_centres():
    states = np.array([3, 0, 0, 0, 1, 2, 3, 3, 0])
    assert pcg.runs_of(states, 0).tolist() == [[1, 3], [8, 8]]
    assert pcg.runs_of(states, 0, shortest=2).tolist() == [[1, 3]]
    assert pcg.centres_of(states)[pcg.S1].tolist() == [2.0, 8.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fs": 100.0}, "sampling rate of 100 Hz"),
        ({"signal": np.array([np.nan], dtype=np.float32)}, "not numbers"),
        ({"states": np.zeros(3, dtype=np.int8)}, "3 labelled frames"),
        ({"events": {0: np.array([]), 2: np.array([])}}, "no heart sound"),
        ({"events": {0: np.array([2.0, 1.0]), 2: np.array([])}}, "unsorted"),
        ({"events": {0: np.array([1e6]), 2: np.array([])}}, "outside"),
    ],
)
def test_records_that_break_a_promise(generated, change, message):
    with pytest.raises(DataError, match=message):
        replace(generated.records[0], **change).validate()


def write_recording(folder, name, rows):
    """Write two seconds at 1000 Hz with its rows of start, end and state."""
    from scipy.io import wavfile

    folder.mkdir(exist_ok=True)
    wavfile.write(folder / f"{name}.wav", 1000, np.full(2000, 16384, dtype=np.int16))
    (folder / f"{name}.hea").write_text(f"{name} 1 1000 2000\n{name}.wav 16 1 16 0 0 0 0 AV\n")
    (folder / f"{name}.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))


def test_what_is_read_of_a_circor_recording(tmp_path):
    write_recording(tmp_path, "7_AV", [(0.2, 0.3, 1), (0.3, 0.5, 2), (0.5, 0.6, 3), (0.6, 1.0, 4), (1.0, 1.2, 0)])
    write_recording(tmp_path, "7_MV", [(0.21, 0.29, 1)])
    first, second = pcg.load_circor2022(tmp_path, 0).records
    assert first.patient == second.patient == "circor2022/7"
    assert first.states.tolist() == [-1] * 10 + [0] * 5 + [1] * 10 + [2] * 5 + [3] * 20 + [-1] * 50
    assert first.events[pcg.S1].tolist() == [12.0]
    assert first.events[pcg.S2].tolist() == [27.0]
    assert first.signal[:2].tolist() == [0.5, 0.5]
    # The frame of 0.20 to 0.22 s is S1 from its middle on, that of 0.28 to 0.30 s up to it.
    assert np.flatnonzero(second.states == pcg.S1).tolist() == [10, 11, 12, 13, 14]


def test_where_springers_sounds_are(tmp_path):
    """R peaks and ends of T waves are counted from 1; S1 lies 61 ms after R and lasts 122 ms, S2 92 ms."""
    np.savez(tmp_path / "a.npz", pcg=np.ones(2000), fs=1000, r_peaks_50hz=[11, 51], t_ends_50hz=[31, 71])
    (record,) = pcg.load_springer(tmp_path, 0).records
    assert record.events[pcg.S1] == pytest.approx([13.05, 53.05])
    assert record.events[pcg.S2] == pytest.approx([30.0, 70.0])
    assert pcg.centres_of(record.states)[pcg.S1] == pytest.approx([13, 53], abs=0.5)
    assert np.diff(pcg.runs_of(record.states, pcg.S1)).ravel().tolist() == [6, 6]
    assert np.diff(pcg.runs_of(record.states, pcg.S2)).ravel().tolist() == [4, 4]
    assert record.states[[0, 20, 40, 60, 80]].tolist() == [-1, pcg.SYSTOLE, pcg.DIASTOLE, pcg.SYSTOLE, -1]


def write_challenge(root, name, rows, part="training-a", samples=4000, fs=2000):
    """Write two seconds of sound and its corrected states, as rows of a 1-based sample and a name."""
    from scipy.io import savemat, wavfile

    (root / part).mkdir(parents=True, exist_ok=True)
    wavfile.write(root / part / f"{name}.wav", fs, np.full(samples, 8192, dtype=np.int16))
    cells = np.empty((len(rows), 2), dtype=object)
    for i, (sample, state) in enumerate(rows):
        inner = np.empty((1, 1), dtype=object)
        inner[0, 0] = state
        cells[i] = [np.array([[sample]]), inner]
    labels = root / "annotations/hand_corrected" / f"{part}_StateAns"
    labels.mkdir(parents=True, exist_ok=True)
    savemat(labels / f"{name}_StateAns.mat", {"state_ans": cells})
    return labels / f"{name}_StateAns.mat"


CYCLE = [(401, "S1"), (601, "systole"), (1001, "S2"), (1201, "diastole"), (1601, "(N"), (2001, "N)"), (2401, "S1")]


def test_what_is_read_of_a_challenge_recording(tmp_path):
    write_challenge(tmp_path, "a0001", CYCLE)
    write_challenge(tmp_path, "b0002", CYCLE, "training-b")
    (tmp_path / "validation").mkdir()  # which repeats training recordings
    shutil.copy(tmp_path / "training-a/a0001.wav", tmp_path / "validation/a0001.wav")
    first, second = pcg.load_cinc2016(tmp_path, 0).records
    assert (first.name, first.patient, second.patient) == ("a0001", "cinc2016/a0001", "cinc2016/b0002")
    expected = [-1] * 10 + [0] * 5 + [1] * 10 + [2] * 5 + [3] * 10 + [-1] * 60
    assert first.states.tolist() == expected  # the S1 of the last row has no end
    assert first.events[pcg.S1].tolist() == [12.0]
    assert first.events[pcg.S2].tolist() == [27.0]
    assert (first.fs, first.signal[0]) == (2000.0, 0.25)


def test_samples_of_a_challenge_recording_are_counted_from_1(tmp_path):
    """A frame is S1 if its middle is: the middle of the first frame is sample 21, counted from 1."""
    for sample, frame in ((21, 0), (22, 1)):
        write_challenge(tmp_path, "a0001", [(sample, "S1"), (401, "systole"), (900, "S2"), (1200, "diastole")])
        (record,) = pcg.load_cinc2016(tmp_path, 0).records
        assert int(np.flatnonzero(record.states == pcg.S1)[0]) == frame


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, "S3"), (9, "S1")], "a0001_StateAns.mat: unknown state 'S3'"),
        ([(900, "S1"), (1, "systole"), (1000, "S2")], "a0001_StateAns.mat: its states are unsorted"),
        ([(1, "systole"), (9, "diastole")], "record a0001: its annotations name no heart sound"),
        ([(1.5, "S1"), (9, "systole")], r"a0001_StateAns.mat: state_ans holds 1\.5, needs whole numbers"),
        ([(np.nan, "S1"), (9, "systole")], "a0001_StateAns.mat: state_ans holds nan, needs whole numbers"),
        ([(0, "S1"), (9, "systole")], "states begin at samples 0 to 9 of 4000: of another recording"),
        ([(1, "S1"), (4001, "systole")], "states begin at samples 1 to 4001 of 4000: of another recording"),
    ],
)
def test_broken_states_of_the_challenge(tmp_path, rows, message):
    write_challenge(tmp_path, "a0001", rows)
    with pytest.raises(DataError, match=message) as caught:
        pcg.load_cinc2016(tmp_path, 0)
    assert "\n" not in str(caught.value)


def test_broken_recordings_of_the_challenge(tmp_path):
    with pytest.raises(DatasetNotFound, match=r"holds no recordings .* of CinC 2016"):
        pcg.load_cinc2016(tmp_path, 0)
    with pytest.raises(DatasetNotFound, match="--data-root"):
        pcg.load_cinc2016(None, 0)
    labels = write_challenge(tmp_path, "a0001", CYCLE, fs=1000)
    with pytest.raises(DataError, match="record a0001: sampling rate 1000 Hz, needs 2000"):
        pcg.load_cinc2016(tmp_path, 0)
    write_challenge(tmp_path, "a0001", CYCLE)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "training-a/a0001.wav", tmp_path / "elsewhere/a0001.wav")
    with pytest.raises(DataError, match=r"there are 2 files a0001.wav in the folders beside it, needs one"):
        pcg.load_cinc2016(tmp_path, 0)
    shutil.rmtree(tmp_path / "elsewhere")
    (tmp_path / "training-a/a0001.wav").unlink()
    with pytest.raises(DataError, match=r"a0001_StateAns.mat: there are 0 files a0001.wav"):
        pcg.load_cinc2016(tmp_path, 0)
    write_challenge(tmp_path, "a0001", CYCLE)
    labels.write_bytes(b"no matrix")
    with pytest.raises(DataError, match=r"a0001_StateAns.mat: cannot be read"):
        pcg.load_cinc2016(tmp_path, 0)


def test_the_challenge_is_registered_with_where_it_comes_from():
    spec = get_registry().dataset("cinc2016")
    assert (spec.licence, spec.data_type) == ("ODC-BY 1.0", "benchsuite.datasets.pcg.reader:PcgDataset")
    assert load_object(spec.load) is pcg.load_cinc2016


ROWS = [(0.2, 0.3, 1), (0.3, 0.5, 2), (0.5, 0.6, 3), (0.6, 1.0, 4)]


@pytest.fixture
def recording(tmp_path):
    """Return the folder of a sound recording 7_AV."""
    write_recording(tmp_path, "7_AV", ROWS)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.2\t0.3\n", r"7_AV\.tsv: line 1: has 2 cells, needs rows of start, end, state"),
        ("0.2\t0.3\t1\t9\n", "line 1: has 4 cells"),
        ("\n0,2\t0,3\t1\n", "line 2: start is '0,2', needs a finite number with a decimal point"),
        ("start\tend\tstate\n0.2\t0.3\t1\n", "line 1: start is 'start'"),
        ("nan\t0.3\t1\n", "line 1: start is 'nan', needs a finite number"),
        ("0.2\t0.3\t1.5\n", "line 1: state is '1.5', needs a whole number"),
        ("0.2\t0.3\t-1\n", "line 1: unknown state -1"),
        ("0.2\t0.3\t1\n0.25\t0.5\t2\n", "line 2: begins at 0.25 s, before the row above ends at 0.3 s"),
        ("0.2\t0.3\t1\n0.2\t0.3\t1\n", "line 2: begins at 0.2 s, before the row above ends"),
        ("0.3\t0.2\t1\n", "line 1: rows are unsorted or end before they start"),
        ("0.2\t2.5\t1\n", r"line 1: lies outside the 2 s of the recording"),
        ("-0.1\t0.5\t1\n", "line 1: lies outside the 2 s of the recording"),
    ],
)
def test_rows_that_are_wrong_are_told_with_their_line(recording, text, message):
    (recording / "7_AV.tsv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        pcg.load_circor2022(recording, 0)
    assert "\n" not in str(caught.value)


def test_what_changes_nothing_in_the_rows(recording):
    sound = pcg.load_circor2022(recording, 0).content_hash()
    text = (recording / "7_AV.tsv").read_text()
    for changed in (
        text + "\n\n",
        "\ufeff" + text,
        text.replace("\n", "\r\n"),
        text.replace("\t", "  "),
        text.rstrip(),
        text.replace("\t1\n", "\t1.0\n"),
    ):
        (recording / "7_AV.tsv").write_bytes(changed.encode())
        assert pcg.load_circor2022(recording, 0).content_hash() == sound
    (recording / "7_AV.tsv").write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match="no UTF-8 text"):
        pcg.load_circor2022(recording, 0)


def test_rows_with_a_gap_leave_frames_without_annotation(recording):
    (recording / "7_AV.tsv").write_text("0.2\t0.3\t1\n0.5\t0.6\t3\n")
    (record,) = pcg.load_circor2022(recording, 0).records
    assert record.states.tolist() == [-1] * 10 + [0] * 5 + [-1] * 10 + [2] * 5 + [-1] * 70


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(1500, dtype=np.int16), r"7_AV\.wav: holds 1,500 of 2,000 samples that 7_AV\.hea announces"),
        (np.zeros(2500, dtype=np.int16), "holds 2,500 of 2,000 samples"),
        (np.zeros((2000, 2), dtype=np.int16), "2 channels, needs one"),
        (np.zeros(2000, dtype=np.uint8), r"7_AV\.wav: its samples are uint8, needs 16-bit"),
        (np.zeros(2000, dtype=np.int32), "its samples are int32"),
        (np.zeros(2000, dtype=np.float32), "its samples are float32"),
    ],
)
def test_sounds_of_another_form(recording, samples, message):
    from scipy.io import wavfile

    wavfile.write(recording / "7_AV.wav", 1000, samples)
    with pytest.raises(DataError, match=message):
        pcg.load_circor2022(recording, 0)


def test_a_sound_shorter_than_it_says_itself(recording):
    wav, header = recording / "7_AV.wav", recording / "7_AV.hea"
    wav.write_bytes(wav.read_bytes()[:-1000])
    header.write_text(header.read_text().replace("1000 2000", "1000 1500"))
    with pytest.raises(DataError, match="fewer samples than it announces itself"):
        pcg.load_circor2022(recording, 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7_AV 1 1000 2000", "7_AV 1", "states no sampling rate"),
        ("7_AV 1 1000 2000", "7_AV 1 1000", "states no sampling rate or no number of samples"),
        ("7_AV 1 1000 2000", "7_AV 1 4000 2000", "sound at 1000 Hz, but its header says 4000 Hz"),
        ("7_AV 1 1000 2000", "7_MV 1 1000 2000", "is the header of record '7_MV'"),
        ("7_AV.wav 16", "7_MV.wav 16", "needs one signal, of 16 bits, in 7_AV.wav"),
        ("7_AV.wav 16", "7_AV.wav 24", "needs one signal, of 16 bits, in 7_AV.wav"),
    ],
)
def test_headers_that_contradict_the_sound(recording, old, new, message):
    header = recording / "7_AV.hea"
    header.write_text(header.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        pcg.load_circor2022(recording, 0)


def test_every_recording_has_its_rows_and_every_listed_one_is_there(recording):
    (recording / "7.txt").write_text("7 1 1000\nAV 7_AV.hea 7_AV.wav 7_AV.tsv\n#Age: Child\n#Sex: a b c.hea d\n")
    assert len(pcg.load_circor2022(recording, 0).records) == 1
    (recording / "7.txt").write_text("7 2 1000\nAV 7_AV.hea 7_AV.wav 7_AV.tsv\nMV 7_MV.hea 7_MV.wav 7_MV.tsv\n")
    with pytest.raises(DataError, match=r"7\.txt: lists 7_MV\.hea, which is missing"):
        pcg.load_circor2022(recording, 0)
    (recording / "7.txt").unlink()
    (recording / "8_AV.wav").write_bytes((recording / "7_AV.wav").read_bytes())
    with pytest.raises(DataError, match=r"8_AV\.wav: 8_AV\.tsv is missing beside it"):
        pcg.load_circor2022(recording, 0)


SPRINGER = {"pcg": np.ones(2000), "fs": 1000, "r_peaks_50hz": [11, 51], "t_ends_50hz": [31, 71]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fs": 1000.7}, "sampling rate 1000.7 Hz, needs 1000"),
        ({"fs": [1000, 2000]}, "sampling rate 1000, 2000 Hz"),
        ({"fs": "1000"}, "fs holds <U4, needs real numbers"),
        ({"fs": None}, r"a\.npz: has no 'fs', only pcg, r_peaks_50hz, t_ends_50hz"),
        ({"pcg": np.ones((2000, 2))}, r"pcg has shape \(2000, 2\)"),
        ({"pcg": np.ones(2000, dtype=complex)}, "pcg holds complex128"),
        ({"pcg": np.full(2000, np.nan)}, "2000 samples are not numbers"),
        ({"pcg": np.array([])}, "outside the frames 1 to 0"),
        ({"pcg": np.ones(500)}, "r_peaks_50hz holds 51|t_ends_50hz holds 31"),
        ({"r_peaks_50hz": [11, np.nan]}, "r_peaks_50hz holds nan, needs whole numbers"),
        ({"r_peaks_50hz": [11.5, 51]}, "r_peaks_50hz holds 11.5"),
        ({"r_peaks_50hz": [0, 51]}, "r_peaks_50hz holds 0, outside the frames 1 to 100"),
        ({"r_peaks_50hz": [51, 11]}, "unsorted or repeated"),
        ({"t_ends_50hz": [[1, 2], [3, 4]]}, r"t_ends_50hz has shape \(2, 2\)"),
        ({"t_ends_50hz": [31, 101, 130]}, "t_ends_50hz holds 101, outside the frames 1 to 100"),
    ],
)
def test_springer_files_of_another_form(tmp_path, change, message):
    content = {key: value for key, value in (SPRINGER | change).items() if value is not None}
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match=message) as caught:
        pcg.load_springer(tmp_path, 0)
    assert "\n" not in str(caught.value)


def test_what_changes_nothing_in_springer_files(tmp_path):
    np.savez(tmp_path / "a.npz", **SPRINGER)
    sound = pcg.load_springer(tmp_path, 0).content_hash()
    for change in ({"fs": [[1000.0]]}, {"pcg": np.ones((1, 2000))}, {"t_ends_50hz": np.array([[31.0], [71.0]])}):
        np.savez(tmp_path / "a.npz", **(SPRINGER | change))
        assert pcg.load_springer(tmp_path, 0).content_hash() == sound
    np.savez(tmp_path / "a.npz", **(SPRINGER | {"r_peaks_50hz": [11, 51, 103]}))
    assert pcg.load_springer(tmp_path, 0).records[0].events[pcg.S1] == pytest.approx([13.05, 53.05])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"events": {0: np.array([1.0, np.nan]), 2: np.array([])}}, "unsorted"), ({"states": 7}, "states are -1, 0, 1")],
)
def test_records_with_states_or_sounds_that_are_none(generated, change, message):
    record = generated.records[0]
    if "states" in change:
        change = {"states": np.full_like(record.states, 7)}
    with pytest.raises(DataError, match=message):
        replace(record, **change).validate()


@pytest.mark.real_data
def test_odd_sounds(real_data):
    assert len(pcg.load_circor2022(real_data / "odd_inputs/pcg-control", 0).records) == 2
    with pytest.raises(DataError, match=r"p1_AV\.wav: holds 2,989 of 6,000 samples that p1_AV\.hea announces"):
        pcg.load_circor2022(real_data / "odd_inputs/pcg-wav-truncated", 0)


def test_a_springer_file_that_was_changed_after_it_was_written(tmp_path):
    """A turned bit in the header of an array shifts its numbers; NumPy alone does not see it."""
    path = tmp_path / "a.npz"
    np.savez(path, **(SPRINGER | {"pcg": np.sin(np.arange(2000.0))}))
    content = bytearray(path.read_bytes())
    place = content.index(b"\x93NUMPY") + 8
    content[place] ^= 32
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read.*check sum of pcg\.npy is wrong|cannot be read.*CRC"):
        pcg.load_springer(tmp_path, 0)


def test_a_sound_that_announces_fewer_samples_than_it_holds(tmp_path):
    """Without a header beside it nothing else tells: the rest would be dropped in silence."""
    write_challenge(tmp_path, "a0001", CYCLE)
    wav = tmp_path / "training-a/a0001.wav"
    content = wav.read_bytes()
    wav.write_bytes(content[:40] + (6000).to_bytes(4, "little") + content[44:])
    with pytest.raises(DataError, match=r"a0001\.wav: holds more or fewer samples than it announces itself"):
        pcg.load_cinc2016(tmp_path, 0)
