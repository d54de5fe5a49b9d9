"""The classical detectors give the figures known for their library versions."""

from __future__ import annotations

import numpy as np
import pytest

from benchsuite.core.registry import get_registry, load_object
from benchsuite.datasets.ecg import generated as ecg_generator
from benchsuite.datasets.ecg import reader as ecg
from benchsuite.datasets.pcg import generated as pcg_generator
from benchsuite.metrics.events import EventCounts, count_events, ec57_counts
from benchsuite.tasks.cardiac_signals.heart_sound_judge import judge
from benchsuite.tasks.cardiac_signals.qrs_judge import strict_counts

pytest.importorskip("wfdb")


def detector(name, **settings):
    spec = get_registry().method(name)
    for library in spec.requires:
        pytest.importorskip(library)
    cls, config = load_object(spec.load), load_object(spec.config)
    return cls(config(**spec.presets["embedded"].settings, **settings)).fit_qrs([], None).detect


@pytest.fixture(scope="module")
def mitdb(real_data):
    return {record.name: record for record in ecg.load_mitdb(real_data / "ecg/mitdb", 0).records}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "record", "expected"),
    [
        ("sleepecg", "208", EventCounts(2224, 5, 213)),
        ("neurokit", "208", EventCounts(2428, 4, 9)),
    ],
)
def test_counts_on_mitdb(mitdb, name, record, expected):
    ecg_record = mitdb[record]
    found = detector(name)(ecg_record.lead(), ecg_record.fs)
    assert ec57_counts(ecg_record.beats, found, ecg_record.fs) == expected


@pytest.mark.real_data
def test_marks_of_pan_tompkins_come_late(mitdb):
    record = mitdb["103"]
    found = detector("pan-tompkins")(record.lead(), record.fs)
    assert 100 * ec57_counts(record.beats, found, record.fs).f1 == pytest.approx(99.86, abs=0.05)
    late = 100 * ec57_counts(record.beats, found, record.fs, tolerance_s=0.075).f1
    assert late == pytest.approx(63.5, abs=0.3)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sleepecg", 88.40),
        ("neurokit", 91.31),
        ("rodrigues", 90.77),
        ("pan-tompkins", 64.90),
        ("xqrs", 80.30),
        ("gqrs", 82.91),
        ("ecgdetectors-hamilton", 81.57),
        ("ecgdetectors-christov", 75.84),
        ("ecgdetectors-two-average", 70.53),
        ("ecgdetectors-swt", 82.56),
        ("ecgdetectors-pan-tompkins", 65.14),
    ],
)
def test_pooled_f1_on_the_cpsc_sample(real_data, name, expected):
    detect = detector(name)
    records = ecg.load_cpsc2019(real_data / "ecg/cpsc2019", 0).records
    pooled = sum((strict_counts(r, detect(r.lead(), r.fs)) for r in records), EventCounts())
    assert 100 * pooled.f1 == pytest.approx(expected, abs=0.3)


NEW = ["gqrs", *(f"ecgdetectors-{name}" for name in ("hamilton", "christov", "two-average", "swt", "pan-tompkins"))]


@pytest.fixture(scope="module")
def clean_beats():
    """Thirty seconds of narrow upright beats at 250 Hz without noise."""
    rng = np.random.default_rng(0)
    intervals, early = ecg_generator.regular(70, 40, rng)
    signal, beats = ecg_generator.render(ecg_generator.upright(rng), intervals, early, 30, 250)
    return signal.astype(np.float32), beats


@pytest.mark.parametrize("name", NEW)
def test_clean_beats_are_found_and_a_flat_line_has_none(name, clean_beats):
    detect = detector(name)
    signal, beats = clean_beats
    found = detect(signal, 250.0)
    assert found.dtype == np.int64
    inner = beats[(beats > 1250) & (beats < 7300)]  # some need five seconds to settle
    counts = count_events(inner, found[(found > 1220) & (found < 7330)], int(0.15 * 250))
    assert (counts.fn, counts.fp) == (0, 0)
    assert detect(np.zeros(5000, dtype=np.float32), 250.0).tolist() == []


def test_a_detector_may_run_at_a_rate_of_its_own(clean_beats):
    """Marks at 125 Hz lie on even samples of 250 Hz; a refused rate says what is allowed."""
    signal, beats = clean_beats
    found = detector("ecgdetectors-two-average", rate=125.0)(signal, 250.0)
    assert (found % 2 == 0).all()
    assert np.abs(found[:, None] - beats[3:-3]).min(axis=0).max() <= 25
    assert found[-1] > 7000
    with pytest.raises(ValueError, match="rate 20 is outside 100"):
        detector("ecgdetectors-hamilton", rate=20.0)


def test_gqrs_is_given_millivolts_and_the_others_do_not_care(clean_beats):
    signal, _ = clean_beats
    assert detector("gqrs")(signal / 1000, 250.0).tolist() == []
    for name in NEW[1:]:
        assert detector(name)(signal, 250.0).tolist() == detector(name)(signal * 64, 250.0).tolist()


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["sleepecg", "neurokit"])
def test_matching_agrees_with_wfdb_on_every_shared_record(real_data, mitdb, name):
    from wfdb.processing import compare_annotations

    detect = detector(name)
    for record in (*mitdb.values(), *ecg.load_svdb(real_data / "ecg/svdb", 0).records):
        found = detect(record.lead(), record.fs)
        tolerance = int(0.15 * record.fs)
        theirs = compare_annotations(record.beats, found, tolerance + 1)
        assert count_events(record.beats, found, tolerance) == EventCounts(theirs.tp, theirs.fp, theirs.fn)


def test_envelope_peaks_find_clean_sounds():
    rng = np.random.default_rng(0)
    segment = load_object(get_registry().method("envelope-peaks").load)
    config = load_object(get_registry().method("envelope-peaks").config)
    run = segment(config()).fit_heart_sounds([], None).segment
    records = [r for r in pcg_generator.load_generated(None, 0).records if r.group == "iid"][:4]
    outcome = judge(records, [run(r.signal, r.fs) for r in records])
    assert outcome.scores["f1_60ms"] > 0.5
    noise = rng.normal(size=4000).astype(np.float32)
    assert run(noise, 1000.0).shape == (200,)
