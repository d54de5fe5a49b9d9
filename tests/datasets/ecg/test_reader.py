"""Readers of electrocardiograms on the real sample and on broken copies of it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.core.registry import get_registry, load_object

pytest.importorskip("wfdb")

from benchsuite.datasets.ecg import reader as ecg
from benchsuite.datasets.ecg.wfdb_records import read_annotations


@pytest.mark.real_data
def test_beats_of_the_mitdb_records(real_data):
    records = ecg.load_mitdb(real_data / "ecg/mitdb", 0).records
    assert {r.name: len(r.beats) for r in records} == {"100": 2273, "101": 1865, "103": 2084, "105": 2572, "208": 2955}
    late = {r.name: int((r.beats >= 300 * r.fs).sum()) for r in records}
    assert late == {"100": 1902, "101": 1523, "103": 1729, "105": 2155, "208": 2437}
    assert records[0].leads == ("MLII", "V5")
    assert records[0].lead("V5").shape == (650_000,)
    with pytest.raises(DataError, match="no lead 'V9', only MLII, V5"):
        records[0].lead("V9")


@pytest.mark.real_data
def test_beats_of_svdb_and_cpsc2019(real_data):
    (record,) = ecg.load_svdb(real_data / "ecg/svdb", 0).records
    assert (len(record.beats), int((record.beats >= 300 * 128).sum())) == (1883, 1569)
    segments = ecg.load_cpsc2019(real_data / "ecg/cpsc2019", 0).records
    inside = sum(int(((r.beats >= r.scored[0]) & (r.beats <= r.scored[1])).sum()) for r in segments)
    assert (len(segments), inside) == (50, 707)


@pytest.mark.real_data
def test_a_folder_with_other_record_names(real_data, tmp_path):
    for suffix in (".hea", ".dat", ".atr"):
        shutil.copy(real_data / f"ecg/mitdb/100{suffix}", tmp_path / f"x1{suffix}")
    header = (tmp_path / "x1.hea").read_text().replace("100", "x1", 1).replace("100.dat", "x1.dat")
    (tmp_path / "x1.hea").write_text(header)
    (record,) = ecg.load_mitdb(tmp_path, 0).records
    assert (record.name, len(record.beats)) == ("x1", 2273)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "100.dat").write_bytes((d / "100.dat").read_bytes()[:1000]), "100.hea: cannot be read"),
        (lambda d: (d / "100.dat").unlink(), "100.dat is missing"),
        (lambda d: (d / "100.atr").unlink(), "100.atr is missing"),
        (lambda d: (d / "100.atr").write_bytes(b"\x00\x00"), "names? no beat|cannot be read"),
        (lambda d: (d / "100.hea").write_text("100 2 10 650000\n" + _signals(d)), "sampling rate of 10 Hz"),
        (lambda d: (d / "100.hea").write_text("100 0 360 650000\n"), "no signal|cannot be read"),
        (lambda d: (d / "100.hea").write_text("nonsense"), "cannot be read"),
    ],
)
def test_broken_records_are_told_in_one_line(real_data, tmp_path, damage, message):
    for suffix in (".hea", ".dat", ".atr"):
        shutil.copy(real_data / f"ecg/mitdb/100{suffix}", tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        ecg.load_mitdb(tmp_path, 0)
    assert "\n" not in str(caught.value)


def _signals(folder):
    return "\n".join((folder / "100.hea").read_text().splitlines()[1:3]) + "\n"


def test_a_folder_without_records(tmp_path):
    with pytest.raises(DatasetNotFound, match="holds no records"):
        ecg.load_mitdb(tmp_path, 0)
    with pytest.raises(DatasetNotFound, match="--data-root"):
        ecg.load_cpsc2019(None, 0)


@pytest.mark.real_data
def test_a_segment_without_answer(real_data, tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copy(real_data / "ecg/cpsc2019/data/data_01235.mat", tmp_path / "data")
    with pytest.raises(DataError, match=r"data_01235\.mat: there is no ref/R_01235\.mat"):
        ecg.load_cpsc2019(tmp_path, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beats": np.array([], dtype=np.int64)}, "no beat"),
        ({"beats": np.array([5, 3])}, "unsorted or repeated"),
        ({"beats": np.array([3, 3])}, "unsorted or repeated"),
        ({"beats": np.array([10**9])}, "annotations of another record or sampling rate"),
        ({"fs": 0.0}, "sampling rate of 0 Hz"),
        ({"leads": ()}, "has no signal"),
    ],
)
def test_records_that_break_a_promise(generated, change, message):
    with pytest.raises(DataError, match=message):
        replace(generated.records[0], **change).validate()


def test_samples_that_are_not_numbers(generated):
    signals = generated.records[0].signals.copy()
    signals[0, 3] = np.nan
    with pytest.raises(DataError, match="1 samples are not numbers"):
        replace(generated.records[0], signals=signals).lead()


def test_fibrillation_is_read_as_episodes():
    assert ecg._episodes(np.array([10, 90]), np.array([20]), 100) == ((10, 20), (90, 100))


def write_record(folder, name, symbols, leads=("MLII", "V5"), annotators=("atr",), comments=()):
    """Write leads of ten seconds at 100 Hz with an annotation every second."""
    import wfdb

    signals = np.random.default_rng(0).normal(size=(1000, len(leads)))
    units, formats = ["mV"] * len(leads), ["16"] * len(leads)
    wfdb.wrsamp(
        name, 100, units, list(leads), p_signal=signals, fmt=formats, comments=list(comments), write_dir=str(folder)
    )
    samples = 50 + 100 * np.arange(len(symbols))
    for annotator in annotators:
        wfdb.wrann(name, annotator, samples, symbol=symbols, fs=100, write_dir=str(folder))
    return signals


def test_what_is_read_of_a_wfdb_record(tmp_path):
    signals = write_record(tmp_path, "100", ["N", "+", "V", "[", "]", "~", "f", "|"])
    (record,) = ecg.load_mitdb(tmp_path, 0).records
    assert record.beats.tolist() == [50, 250, 650]
    assert record.fibrillation == ((350, 450),)
    assert (record.learning_s, record.fs, record.leads) == (300.0, 100.0, ("MLII", "V5"))
    assert record.lead("V5") == pytest.approx(signals[:, 1], abs=1e-3)
    assert record.part == "any"


def test_paced_records_are_left_out_and_201_and_202_are_one_person(tmp_path):
    for name in ("102", "104", "107", "201", "202", "217", "203"):
        write_record(tmp_path, name, ["N"])
    mitdb, svdb = ecg.load_mitdb(tmp_path, 0).records, ecg.load_svdb(tmp_path, 0).records
    assert {r.name: r.patient for r in mitdb} == {"201": "mitdb/201", "202": "mitdb/201", "203": "mitdb/203"}
    assert len({r.patient for r in svdb}) == 7


def test_half_a_second_at_either_end_of_a_segment_does_not_count(tmp_path):
    from scipy.io import savemat

    for folder in ("data", "ref"):
        (tmp_path / folder).mkdir()
    savemat(tmp_path / "data/data_00001.mat", {"ecg": np.zeros((5000, 1))})
    savemat(tmp_path / "ref/R_00001.mat", {"R_peak": np.array([[100], [600]])})
    (record,) = ecg.load_cpsc2019(tmp_path, 0).records
    assert record.challenge == "cpsc2019"
    assert record.scored == (250, 4750)
    assert record.beats.tolist() == [100, 600]
    assert (record.fs, record.learning_s) == (500.0, 0.0)


def persons(data):
    return {record.name: record.patient for record in data.records}


def test_incart_records_are_told_apart_by_the_persons_that_their_headers_number(tmp_path):
    twelve = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
    for name, patient in (("I01", 1), ("I02", 1), ("I03", 2)):
        write_record(
            tmp_path, name, ["N", "V", "+"], twelve, comments=["<age>: 65 <sex>: F", f"patient {patient}", "PVCs"]
        )
    for name in ("I74", "I75"):
        write_record(tmp_path, name, ["N"], twelve, comments=["<age>: 65"])
    data = ecg.load_incartdb(tmp_path, 0)
    assert data.name == "incartdb"
    assert persons(data) == {
        "I01": "incartdb/1",
        "I02": "incartdb/1",
        "I03": "incartdb/2",
        "I74": "incartdb/nobody named",
        "I75": "incartdb/nobody named",
    }
    first = data.records[0]
    assert (first.leads, first.beats.tolist(), first.normal.tolist()) == (twelve, [50, 150], [50])
    assert first.learning_s == 300.0


def test_qtdb_records_with_reference_beats_and_their_persons(tmp_path):
    for name in ("sel100", "sel202", "sel803", "sel16265", "sele0104", "sel301"):
        write_record(tmp_path, name, ["N", "N"])
    write_record(tmp_path, "sel30", ["N"], annotators=("man",))
    assert persons(ecg.load_qtdb(tmp_path, 0)) == {
        "sel100": "mitdb/100",
        "sel202": "mitdb/201",  # whose person 202 is too
        "sel803": "svdb/803",
        "sel16265": "qtdb/sel16265",
        "sele0104": "qtdb/sele0104",
        "sel301": "qtdb/sel301",
    }
    for path in tmp_path.glob("*.atr"):
        path.unlink()
    with pytest.raises(DatasetNotFound, match=r"holds no records \(.hea, .dat, .atr\) of qtdb, only others"):
        ecg.load_qtdb(tmp_path, 0)


def test_noise_stress_records_are_grouped_by_their_ratio(tmp_path):
    for name in ("118e24", "118e06", "118e_6", "119e00", "other"):
        write_record(tmp_path, name, ["N", "V"])
    write_record(tmp_path, "em", ["N"], annotators=())
    data = ecg.load_nstdb(tmp_path, 0)
    groups = {"118e06": "6 dB", "118e24": "24 dB", "118e_6": "-6 dB", "119e00": "0 dB", "other": ""}
    assert {r.name: r.group for r in data.records} == groups
    assert set(persons(data).values()) == {"mitdb/118", "mitdb/119", "nstdb/other"}
    assert all(r.learning_s == 300.0 and r.beats.tolist() == [50, 150] for r in data.records)
    (tmp_path / "119e00.atr").unlink()
    with pytest.raises(DataError, match=r"119e00\.atr is missing"):
        ecg.load_nstdb(tmp_path, 0)


def test_ludb_counts_between_its_annotated_beats_of_lead_i(tmp_path):
    symbols = ["(", "p", ")", "(", "N", ")", "(", "t", ")", "N"]
    write_record(tmp_path, "1", symbols, ("i", "ii"), annotators=("i", "ii"))
    (record,) = ecg.load_ludb(tmp_path, 0).records
    assert record.beats.tolist() == [450, 950]
    assert record.scored == (435, 965)
    assert (record.learning_s, record.patient, record.leads) == (0.0, "ludb/1", ("i", "ii"))
    (tmp_path / "1.i").unlink()
    with pytest.raises(DataError, match=r"1\.hea: 1\.i is missing"):
        ecg.load_ludb(tmp_path, 0)


LOADERS = {"incartdb": "atr", "qtdb": "atr", "nstdb": "atr", "ludb": "i"}


@pytest.mark.parametrize(("source", "annotator"), LOADERS.items())
def test_refusals_of_the_further_data_bases(tmp_path, source, annotator):
    load = getattr(ecg, f"load_{source}")
    with pytest.raises(DatasetNotFound, match=f"holds no records .* of {source}"):
        load(tmp_path, 0)
    with pytest.raises(DatasetNotFound, match="--data-root"):
        load(None, 0)
    write_record(tmp_path, "118e24", ["t", "t"], ("i", "ii"), annotators=(annotator,))
    with pytest.raises(DataError, match="record 118e24: its annotations name no beat"):
        load(tmp_path, 0)
    write_record(tmp_path, "118e24", ["N"] * 3, ("i", "ii"), annotators=(annotator,))
    (tmp_path / "118e24.dat").write_bytes(b"short")
    with pytest.raises(DataError, match=r"118e24\.hea: cannot be read") as caught:
        load(tmp_path, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*LOADERS, "nstdb-noise"])
def test_the_further_data_bases_are_registered_with_where_they_come_from(name):
    spec = get_registry().dataset(name)
    assert spec.homepage.startswith("https://physionet.org/content/")
    assert spec.licence == "ODC-BY 1.0"
    assert spec.citation
    assert spec.layout
    assert spec.files
    assert spec.load.rpartition(":")[2] == f"load_{name.replace('-', '_')}"
    assert callable(load_object(spec.load))


def test_what_counts_as_a_beat_is_what_wfdb_calls_a_qrs():
    from wfdb.io.annotation import ann_labels, is_qrs

    assert {label.symbol for label in ann_labels if is_qrs[label.label_store]} == ecg.BEAT_CODES


@pytest.fixture
def record(tmp_path):
    """Return the folder of a sound record r1, and what to do to its header."""
    write_record(tmp_path, "r1", ["N"] * 9)

    def rewrite(*changes):
        text = (tmp_path / "r1.hea").read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "r1.hea").write_bytes(text.encode())
        return tmp_path

    return rewrite


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("r1 2 100 1000", "r1 2")], "r1.hea: states no sampling rate"),
        ([("r1 2 100 1000", "r1 2 1000")], "r1.hea: states no sampling rate or no number of samples"),
        ([("r1 2 100 1000", "r1 2 hundred 1000")], "r1.hea: cannot be read: its first line is"),
        ([("r1 2 100 1000", "r1/2 2 100 1000")], "r1.hea: is a record of several segments"),
        ([("r1 2 100 1000", "r2 2 100 1000")], "r1.hea: is the header of record 'r2'"),
        ([("r1 2 100 1000", "r1 1 100 1000")], "announces 1 signals and describes 2"),
        ([("r1 2 100 1000", "r1 3 100 1000")], "announces 3 signals and describes 2"),
        ([("r1 2 100 1000", "r1 2 100 2000")], "r1.dat holds 1,000 of 2,000 samples: cut short"),
        ([("r1 2 100 1000", "r1 2 100 500")], "r1.dat holds 1,000 of 500 samples: of another record"),
        ([("r1 2 100 1000", "r1 2 200 1000")], "signal at 200 Hz, annotations at 100 Hz"),
        ([("/mV", "/mmHg")], "r1.hea: signal 0 is in 'mmHg', needs mV, uV, nV or V"),
        ([("/mV", "/µV")], r"r1.hea: .*xb5V.* is not ASCII \(write uV"),
        ([(" 16 ", " 0 ")], "stored in the format 0, which is not read here"),
        ([(" 16 ", " 16x2 ")], "several samples a frame"),
        ([(" 16 ", " what ")], "r1.hea: cannot be read: a signal is described by"),
    ],
)
def test_headers_that_leave_something_out_or_contradict_their_files(record, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        ecg.load_svdb(record(*changes), 0)
    assert "\n" not in str(caught.value)


def test_signals_that_are_not_calibrated_or_not_the_header_s(tmp_path, record):
    lines = (tmp_path / "r1.hea").read_text().splitlines()
    words = lines[1].split()
    for change, message in (
        ([*words[:2]], "signal 0 is not calibrated"),
        ([*words[:2], "0", *words[3:]], "signal 0 is not calibrated"),
        ([*words[:2], *words[3:]], "signal 0 begins with|is described by|not calibrated"),
        ([*words[:6], str(int(words[6]) + 7), *words[7:]], "r1.dat: the checksum of signal 0 is"),
    ):
        (tmp_path / "r1.hea").write_text("\n".join([lines[0], " ".join(change), *lines[2:]]) + "\n")
        with pytest.raises(DataError, match=message):
            ecg.load_svdb(tmp_path, 0)


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e-3), ("V", 1e3), ("nV", 1e-6), ("mv", 1.0)])
def test_units_become_millivolts(record, unit, factor):
    (before,) = ecg.load_svdb(record(), 0).records
    (after,) = ecg.load_svdb(record(("/mV", f"/{unit}")), 0).records
    assert np.array_equal(after.signals, (before.signals.astype(np.float64) * factor).astype(np.float32)) or (
        after.signals == pytest.approx(before.signals * factor, rel=1e-6)
    )


def test_marks_of_order_and_line_ends_of_a_header_change_nothing(tmp_path, record):
    sound = ecg.load_svdb(record(), 0).content_hash()
    text = (tmp_path / "r1.hea").read_bytes()
    for changed in (b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n"), b"# a comment\n" + text + b"\n\n", text[:-1]):
        (tmp_path / "r1.hea").write_bytes(changed)
        assert ecg.load_svdb(tmp_path, 0).content_hash() == sound


def test_annotations_that_were_cut_off_or_have_no_header(tmp_path, record):
    content = (tmp_path / "r1.atr").read_bytes()
    for length in (len(content) - 2, len(content) - 4, len(content) - 3, 4):
        (tmp_path / "r1.atr").write_bytes(content[:length])
        with pytest.raises(DataError, match="cannot be read"):
            ecg.load_svdb(tmp_path, 0)
    (tmp_path / "r1.atr").write_bytes(content)
    (tmp_path / "r2.atr").write_bytes(content)
    with pytest.raises(DataError, match=r"r2\.atr: r2\.hea is missing"):
        ecg.load_svdb(tmp_path, 0)


def test_annotations_beyond_the_end_or_unsorted(tmp_path, record):
    for samples, message in (([10, 1000], "at sample 1000 of 1000"), ([30, 20], "unsorted or repeated")):
        content = b"".join(
            bytes([delta, 1 << 2]) if 0 <= delta < 256 else _skip(delta) + bytes([0, 1 << 2])
            for delta in np.diff([0, *samples]).tolist()
        )
        (tmp_path / "r1.atr").write_bytes(content + b"\x00\x00")
        with pytest.raises(DataError, match=message):
            ecg.load_svdb(tmp_path, 0)


def _skip(delta):
    """Return the MIT format's long interval: the high word, then the low one."""
    word = delta & 0xFFFFFFFF
    return bytes([0, 59 << 2]) + (word >> 16).to_bytes(2, "little") + (word & 0xFFFF).to_bytes(2, "little")


def test_only_records_that_are_left_out(tmp_path):
    write_record(tmp_path, "102", ["N"])
    with pytest.raises(DatasetNotFound, match=r"no records \(.*\) of mitdb, only others"):
        ecg.load_mitdb(tmp_path, 0)


def test_two_leads_of_one_name_are_not_told_apart_by_order(generated):
    signals = np.repeat(generated.records[0].signals, 2, axis=0)
    record = replace(generated.records[0], signals=signals, leads=("ECG", "ECG"))
    assert np.array_equal(record.lead(), signals[0])
    with pytest.raises(DataError, match="has 2 leads 'ECG'"):
        record.lead("ECG")


def test_what_cannot_be_a_number_is_told_when_data_are_verified(generated):
    signals = generated.records[0].signals.copy()
    signals[0, 3] = np.inf
    with pytest.raises(DataError, match="1 samples are not numbers"):
        replace(generated.records[0], signals=signals).validate()
    with pytest.raises(DataError, match="fibrillation is annotated outside"):
        replace(generated.records[0], fibrillation=((3, 10**7),)).validate()


SEGMENT = {"ecg": np.linspace(0, 1, 5000)[:, None]}
PEAKS = {"R_peak": np.array([[100], [600]])}


@pytest.mark.parametrize(
    ("segment", "peaks", "message"),
    [
        ({"ecg": np.zeros((5000, 2))}, PEAKS, r"data_00001.mat: ecg has shape \(5000, 2\), needs one row or column"),
        ({"ecg": np.zeros((2, 2500))}, PEAKS, "needs one row or column"),
        ({"ecg": np.zeros((2500, 1))}, PEAKS, "ecg has 2,500 of 5,000 samples"),
        ({"ecg": np.zeros((5000, 1), dtype=complex)}, PEAKS, "ecg holds complex128, needs real numbers"),
        ({"ecg": "text"}, PEAKS, "ecg holds <U4, needs real numbers"),
        ({"ecg": np.full((5000, 1), np.nan)}, PEAKS, "5000 samples are not numbers"),
        ({"ECG": np.zeros((5000, 1))}, PEAKS, "data_00001.mat: has no 'ecg', only ECG"),
        (SEGMENT, {"r_peak": [3]}, "R_00001.mat: has no 'R_peak', only r_peak"),
        (SEGMENT, {"R_peak": [3.5]}, "R_00001.mat: R_peak holds 3.5, needs whole numbers"),
        (SEGMENT, {"R_peak": [3, np.nan]}, "R_peak holds nan"),
        (SEGMENT, {"R_peak": [[3, 4], [5, 6]]}, r"R_peak has shape \(2, 2\)"),
        (SEGMENT, {"R_peak": []}, "name no beat"),
        (SEGMENT, {"R_peak": [-3, 5]}, "a beat lies at sample -3 of 5000"),
        (SEGMENT, {"R_peak": [3, 5000]}, "a beat lies at sample 5000 of 5000"),
        (SEGMENT, {"R_peak": [5, 3]}, "unsorted or repeated"),
    ],
)
def test_segments_of_another_form(tmp_path, segment, peaks, message):
    _write_segment(tmp_path, segment, peaks)
    with pytest.raises(DataError, match=message) as caught:
        ecg.load_cpsc2019(tmp_path, 0)
    assert "\n" not in str(caught.value)


def _write_segment(folder, segment, peaks, number="00001"):
    from scipy.io import savemat

    for name, content in ((f"data/data_{number}.mat", segment), (f"ref/R_{number}.mat", peaks)):
        (folder / name).parent.mkdir(exist_ok=True)
        savemat(folder / name, content)


def test_a_segment_may_lie_down_and_hold_whole_floats(tmp_path):
    _write_segment(tmp_path, SEGMENT, PEAKS)
    sound = ecg.load_cpsc2019(tmp_path, 0).content_hash()
    _write_segment(tmp_path, {"ecg": SEGMENT["ecg"].T}, {"R_peak": PEAKS["R_peak"].T.astype(np.float64)})
    assert ecg.load_cpsc2019(tmp_path, 0).content_hash() == sound


def test_an_answer_without_segment_and_the_hdf_format(tmp_path):
    _write_segment(tmp_path, SEGMENT, PEAKS)
    (tmp_path / "ref/R_00002.mat").write_bytes((tmp_path / "ref/R_00001.mat").read_bytes())
    with pytest.raises(DataError, match=r"ref/R_00002\.mat: there is no data/data_00002\.mat"):
        ecg.load_cpsc2019(tmp_path, 0)
    (tmp_path / "ref/R_00002.mat").unlink()
    version = b"\x00\x02" + b"IM"
    (tmp_path / "data/data_00001.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + version + bytes(999))
    with pytest.raises(DataError, match=r"data_00001\.mat: is in the format of MATLAB 7\.3"):
        ecg.load_cpsc2019(tmp_path, 0)


@pytest.mark.real_data
def test_odd_files(real_data):
    odd = real_data / "odd_inputs"
    (sound,) = ecg.load_svdb(odd / "ecg-control", 0).records
    (small,) = ecg.load_svdb(odd / "ecg-microvolt", 0).records
    (flutter,) = ecg.load_svdb(odd / "ecg-flutter-mark", 0).records
    assert sound.signals.max() == small.signals.max() == np.float32(1.05)
    assert np.array_equal(flutter.beats, sound.beats)
    with pytest.raises(DataError, match=r"ecg has shape \(5000, 2\)"):
        ecg.load_cpsc2019(odd / "cpsc-two-leads", 0)


@pytest.mark.real_data
def test_annotations_are_those_of_wfdb(real_data):
    import wfdb

    for path in sorted((real_data / "ecg").glob("*db/*.atr")):
        times, symbols, _ = read_annotations(path.with_suffix(".hea"), "atr")
        expected = wfdb.rdann(str(path.with_suffix("")), "atr")
        assert times.tolist() == expected.sample.tolist()
        assert symbols.tolist() == expected.symbol


def test_annotations_with_notes_fields_and_long_intervals_are_those_of_wfdb(tmp_path):
    import wfdb

    samples, notes = np.array([5, 700, 5000, 400_000]), ["(N", "", "odd", ""]
    fields = {"num": np.array([0, 1, 0, 2]), "subtype": np.array([0, 3, 0, 0]), "chan": np.array([0, 1, 0, 0])}
    symbols = ["+", "N", '"', "!"]
    wfdb.wrann("r1", "atr", samples, symbol=symbols, aux_note=notes, fs=125.5, write_dir=str(tmp_path), **fields)
    times, found, rate = read_annotations(tmp_path / "r1.hea", "atr")
    assert (times[-4:].tolist(), found[-4:].tolist(), rate) == (samples.tolist(), symbols, 125.5)


def test_a_remark_at_the_first_sample_is_read(tmp_path, record):
    """WFDB's own reader never ends on it."""
    content = (tmp_path / "r1.atr").read_bytes()
    remark = (22 << 10).to_bytes(2, "little") + (63 << 10 | 4).to_bytes(2, "little") + b"note"
    (tmp_path / "r1.atr").write_bytes(remark + content)
    assert len(ecg.load_svdb(tmp_path, 0).records[0].beats) == 9
