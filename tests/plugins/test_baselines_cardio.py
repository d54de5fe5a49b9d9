"""The classical detectors give the figures known for their library versions."""

from __future__ import annotations

import numpy as np
import pytest

from benchsuite.core.registry import get_registry, load_object
from benchsuite.datasets.ecg import reader as ecg
from benchsuite.datasets.pcg import generated as pcg_generator
from benchsuite.metrics.events import EventCounts, count_events, ec57_counts
from benchsuite.tasks.cardiac_signals.heart_sound_judge import judge
from benchsuite.tasks.cardiac_signals.qrs_judge import strict_counts

pytest.importorskip("wfdb")


def detector(name):
    spec = get_registry().method(name)
    for library in spec.requires:
        pytest.importorskip(library)
    cls, config = load_object(spec.load), load_object(spec.config)
    return cls(config(**spec.presets["embedded"].settings)).fit_qrs([], None).detect


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
    [("sleepecg", 88.40), ("neurokit", 91.31), ("rodrigues", 90.77), ("pan-tompkins", 64.90), ("xqrs", 80.30)],
)
def test_pooled_f1_on_the_cpsc_sample(real_data, name, expected):
    detect = detector(name)
    records = ecg.load_cpsc2019(real_data / "ecg/cpsc2019", 0).records
    pooled = sum((strict_counts(r, detect(r.lead(), r.fs)) for r in records), EventCounts())
    assert 100 * pooled.f1 == pytest.approx(expected, abs=0.3)


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
