"""Noise on test records: its strength against hand cases, the same for all methods and seeds, none by default."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchsuite.core.config import build_config, config_dict
from benchsuite.core.errors import ConfigError, DataError, Incompatible
from benchsuite.core.registry import get_registry
from benchsuite.datasets.ecg.noise import NoiseDataset, NoiseRecord
from benchsuite.datasets.ecg.reader import EcgRecord
from benchsuite.harness.plan import Request, plan
from benchsuite.harness.settings import parse_assignments
from benchsuite.tasks.cardiac_signals import noise
from benchsuite.tasks.cardiac_signals.heart_sound_contract import (
    HeartSoundProtocol,
    HeartSoundSegmenter,
    Segmentation,
)
from benchsuite.tasks.cardiac_signals.heart_sound_segmentation import HeartSoundSegmentation
from benchsuite.tasks.cardiac_signals.qrs_contract import Detector, QrsDetector, QrsProtocol
from benchsuite.tasks.cardiac_signals.qrs_detection import QrsDetection

ECG_KINDS = ("baseline-wander", "muscle", "electrode-motion")
PCG_KINDS = ("breath", "ambient", "movement")


def spikes(seconds=400, fs=250.0, height=2.0, every=1.0, **changes):
    """Return a flat record with triangular beats of a known height."""
    signal = np.zeros(int(seconds * fs), dtype=np.float32)
    beats = np.arange(int(0.5 * fs), len(signal) - 20, int(every * fs))
    for offset in range(-5, 6):
        signal[beats + offset] = height * (1 - abs(offset) / 5)
    return replace(EcgRecord("spikes", "p", signal[None], ("MLII",), fs, beats), **changes)


def added(record, protocol, recorded=None):
    noisy = noise.noisy_ecg(record, protocol, recorded)
    return noisy.signals[0].astype(np.float64) - record.lead()


def recorded_noise(fs=360.0, channels=2, seconds=40):
    rng = np.random.default_rng(3)
    signals = rng.normal(size=(channels, int(seconds * fs))).astype(np.float32)
    return NoiseDataset(
        "nstdb-noise", {kind: NoiseRecord(kind, (i + 1) * signals, fs) for i, kind in enumerate(ECG_KINDS)}
    )


def test_the_gain_of_nst_by_hand():
    """A sine of peak-to-peak 2 has power .5: at 0 dB noise of deviation 1 is halved in power."""
    assert noise.nst_gain(0.0, 2.0, 1.0) == pytest.approx(np.sqrt(0.5))
    assert noise.nst_gain(20.0, 2.0, 1.0) == pytest.approx(np.sqrt(0.5) / 10)
    assert noise.nst_gain(0.0, 2.0, 4.0) == pytest.approx(np.sqrt(0.5) / 4)


def test_largest_and_smallest_twentieth_are_dropped():
    values = np.ones(100)
    values[:5], values[50:55] = 1000.0, -1000.0
    assert noise.trimmed_mean(values) == 1.0
    assert noise.trimmed_mean(np.array([1.0, 3.0])) == 2.0


def test_heights_of_beats_are_taken_within_50_ms_of_the_first_300():
    record = spikes()
    signal = record.lead().astype(np.float64)
    signal[record.beats + 14] = -50.0  # 56 ms after the peak
    signal[record.beats[300:]] = 70.0
    heights = noise.beat_heights(signal, np.concatenate([[3], record.beats]), record.fs)
    assert heights == pytest.approx(np.full(300, 2.0))
    signal[record.beats[7] + 12] = -1.0  # 48 ms after it
    assert noise.beat_heights(signal, record.beats, record.fs)[7] == pytest.approx(3.0)


def test_windows_of_noise_are_a_second_less_their_mean():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400 * 100)
    x = (x.reshape(400, 100) - x.reshape(400, 100).mean(axis=1, keepdims=True)) / x.reshape(400, 100).std(axis=1)[
        :, None
    ]
    drifting = x + np.arange(400)[:, None] * 5.0
    drifting[300:] *= 100
    assert noise.windowed_rms(drifting.ravel(), 100.0) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ECG_KINDS)
@pytest.mark.parametrize("snr_db", [12.0, 0.0])
def test_noise_on_beats_is_as_strong_as_asked(kind, snr_db):
    record = spikes()
    noisy = added(record, QrsProtocol(noise=kind, snr_db=snr_db))
    power = noise.windowed_rms(noisy, record.fs) ** 2
    assert 10 * np.log10(2.0**2 / 8 / power) == pytest.approx(snr_db, abs=0.02)
    plain = added(record, QrsProtocol(noise=kind, snr_db=snr_db, snr_rule="power"))
    assert 20 * np.log10(record.lead().std() / plain.std()) == pytest.approx(snr_db, abs=0.02)
    assert plain.std() < 0.6 * noisy.std()  # sparse beats: the rules differ by several dB


def test_normal_beats_alone_give_the_height():
    record = spikes()
    signal = record.signals.copy()
    signal[0, record.beats[::2]] = 40.0
    half = replace(record, signals=signal, normal=record.beats[1::2])
    protocol = QrsProtocol(noise="muscle")
    assert added(half, protocol) == pytest.approx(added(record, protocol), abs=1e-5)


def test_noise_follows_from_the_name_and_the_kind():
    record, protocol = spikes(30), QrsProtocol(noise="muscle")
    first = added(record, protocol)
    assert np.array_equal(first, added(record, protocol))
    assert abs(np.corrcoef(first, added(replace(record, name="other"), protocol))[0, 1]) < 0.2
    assert first == pytest.approx(2 * added(record, QrsProtocol(noise="muscle", snr_db=6 + 20 * np.log10(2))), abs=1e-5)


def test_without_noise_the_record_itself_is_given(pcg):
    record = spikes(30)
    assert noise.noisy_ecg(record, QrsProtocol()) is record
    assert noise.noisy_pcg(pcg.records[0], HeartSoundProtocol()) is pcg.records[0]


def test_only_the_lead_that_is_looked_at_is_kept():
    record = spikes(30)
    two = replace(record, signals=np.stack([record.signals[0], -3 * record.signals[0]]), leads=("MLII", "V5"))
    noisy = noise.noisy_ecg(two, QrsProtocol(lead="V5", noise="muscle", snr_db=40))
    assert noisy.leads == ("V5",)
    assert np.corrcoef(noisy.lead("V5"), -record.signals[0])[0, 1] > 0.99
    assert two.signals.shape[0] == 2


def test_recorded_noise_is_resampled_wraps_around_and_goes_by_channel():
    data = recorded_noise()
    record = spikes(100, fs=90.0, every=1.2)
    noisy = added(record, QrsProtocol(noise="muscle"), data)
    assert len(noisy) == 9000
    assert np.corrcoef(noisy[:3600], noisy[3600:7200])[0, 1] > 0.95  # 40 s of noise on 100 s of beats
    source = data.records["muscle"].signals
    two = replace(record, signals=np.repeat(record.signals, 2, axis=0), leads=("MLII", "V5"))
    other = noise.noisy_ecg(two, QrsProtocol(noise="muscle", lead="V5"), data).signals[0] - record.signals[0]
    same_rate = spikes(30, fs=360.0)
    for lead, channel in (("MLII", source[0]), ("V5", source[1])):
        pair = replace(same_rate, signals=np.repeat(same_rate.signals, 2, axis=0), leads=("MLII", "V5"))
        found = noise.noisy_ecg(pair, QrsProtocol(noise="muscle", lead=lead), data).signals[0] - same_rate.signals[0]
        correlation = np.fft.irfft(np.fft.rfft(channel) * np.conj(np.fft.rfft(found, len(channel))))
        assert correlation.max() > 0.99 * np.sqrt((channel**2).sum() * (found**2).sum()) * np.sqrt(30 / 40) * 0.95
    assert abs(np.corrcoef(other, noisy)[0, 1]) < 0.1


def test_recorded_noise_keeps_the_ratio_of_nst():
    record, data = spikes(60, fs=360.0), recorded_noise()
    noisy = added(record, QrsProtocol(noise="electrode-motion", snr_db=6.0), data)
    assert 10 * np.log10(0.5 / noise.windowed_rms(noisy, 360.0) ** 2) == pytest.approx(6.0, abs=0.1)


def test_the_turns_of_nst():
    noisy = added(spikes(760), QrsProtocol(noise="muscle", noise_timing="nst"))
    loud = np.abs(noisy).reshape(-1, 250 * 10).max(axis=1) > 1e-6  # by 10 s
    assert loud.tolist() == [*[False] * 30, *[True] * 12, *[False] * 12, *[True] * 12, *[False] * 10]


def test_what_cannot_be_done_is_said_in_one_line(pcg):
    flat = replace(spikes(30), signals=np.zeros((1, 7500), dtype=np.float32))
    with pytest.raises(
        DataError, match="record spikes: no normal beat to measure the noise by - use --set snr_rule=power"
    ):
        noise.noisy_ecg(flat, QrsProtocol(noise="muscle"))
    with pytest.raises(DataError, match="record spikes: no normal beat"):
        noise.noisy_ecg(spikes(30, normal=np.array([], dtype=np.int64)), QrsProtocol(noise="muscle"))
    with pytest.raises(DataError, match="record spikes: is flat"):
        noise.noisy_ecg(flat, QrsProtocol(noise="muscle", snr_rule="power"))
    silent = replace(pcg.records[0], signal=np.zeros_like(pcg.records[0].signal))
    with pytest.raises(DataError, match="is flat"):
        noise.noisy_pcg(silent, HeartSoundProtocol(noise="breath"))
    with pytest.raises(DataError, match="record spikes: lasts 30 s, and noise_timing=nst leaves the first 300 clean"):
        noise.noisy_ecg(spikes(30), QrsProtocol(noise="muscle", noise_timing="nst"))
    with pytest.raises(ConfigError, match="nstdb-noise is given as noise, but noise=none"):
        noise.noisy_ecg(spikes(30), QrsProtocol(), recorded_noise())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"snr_db": "3"}, "snr_db does nothing without noise"),
        ({"noise_timing": "nst"}, "noise_timing does nothing without noise"),
        ({"noise": "muscle", "snr_db": "90"}, "snr_db 90 is outside -60 .. 60 dB"),
        ({"noise": "muscl"}, "did you mean 'muscle'"),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_config(QrsProtocol, settings, "task 'qrs-detection'")


def test_protocols_without_noise_are_those_of_before_it_could_be_added():
    assert config_dict(QrsProtocol()) == {"lead": "first"}
    assert config_dict(HeartSoundProtocol()) == {}
    noisy = {"noise": "muscle", "snr_db": 6.0, "snr_rule": "nst", "noise_timing": "throughout"}
    assert config_dict(QrsProtocol(noise="muscle")) == {"lead": "first", **noisy}
    assert config_dict(HeartSoundProtocol(noise="breath"))["snr_rule"] == "power"
    assert config_dict(QrsProtocol(), whole=True)["noise"] == "none"


def share(x, fs, low, high):
    """Return the share of the power within a band."""
    power, frequencies = np.abs(np.fft.rfft(x - x.mean())) ** 2, np.fft.rfftfreq(len(x), 1 / fs)
    return power[(frequencies >= low) & (frequencies <= high)].sum() / power.sum()


@pytest.mark.parametrize(
    ("make", "low", "high"),
    [
        (noise.baseline_wander, 0.04, 0.51),
        (noise.muscle, 15, 155),
        (noise.electrode_motion, 0, 15),
        (noise.breath, 95, 605),
        (noise.ambient, 25, 450),
        (noise.movement, 10, 210),
    ],
)
def test_generated_noise_keeps_to_its_band(make, low, high):
    x = make(60_000, 1000.0, np.random.default_rng(0))
    assert x.shape == (60_000,)
    assert share(x, 1000.0, low, high) > 0.97
    assert make(500, 500.0, np.random.default_rng(1)).std() > 0


def test_movement_is_rare_and_muscle_swells():
    def spread(x):
        windows = x.reshape(-1, 250).std(axis=1)
        return np.percentile(windows, 90) / max(np.percentile(windows, 10), 1e-3 * windows.max())

    rng = np.random.default_rng
    assert spread(noise.ambient(60_000, 1000.0, rng(0))) < 2
    assert 2 < spread(noise.muscle(60_000, 1000.0, rng(0))) < 20
    assert spread(noise.movement(60_000, 1000.0, rng(0))) > 50
    assert spread(noise.breath(60_000, 1000.0, rng(0))) > 5


class Listener(QrsDetector, HeartSoundSegmenter):
    """Keeps what it is given."""

    def __init__(self):
        self.trained, self.heard = [], []

    def fit_qrs(self, records, ctx):
        self.trained = [record.signal for record in records]
        return Detector(lambda signal, fs: self.heard.append(signal) or np.array([10]))

    def fit_heart_sounds(self, records, ctx):
        self.trained = [record.signal for record in records]

        def segment(signal, fs):
            self.heard.append(signal)
            return np.zeros(int(np.ceil(len(signal) / fs * 50)), dtype=np.int64)

        return Segmentation(segment)


def test_every_detector_gets_the_same_noisy_test_records_and_clean_training(ecg, make_context):
    records = (*ecg.records[:3], *ecg.records[60:63])
    data = replace(ecg, records=records)
    task, protocol, heard = QrsDetection(), QrsProtocol(noise="electrode-motion", snr_db=0.0), []
    roles = {"train": data, "test": data}
    for given in (roles, roles, task.with_other_answers(roles)):
        listener = Listener()
        task.evaluate(listener, given, protocol, make_context())
        heard.append(np.concatenate(listener.heard))
        assert all(np.array_equal(x, r.signals[0]) for x, r in zip(listener.trained, records, strict=False))
    assert np.array_equal(heard[0], heard[1])
    assert np.array_equal(heard[0], heard[2])  # hidden answers leave no trace in the strength of the noise
    clean = np.concatenate([r.signals[0] for r in records[3:]])
    assert (heard[0] - clean).std() > 0.5 * clean.std()


def test_recorded_noise_comes_in_a_role_of_its_own(ecg, make_context):
    records = (*ecg.records[:3], *ecg.records[60:62])
    data = replace(ecg, records=records)
    listener = Listener()
    roles = {"train": data, "test": data, "noise": recorded_noise()}
    QrsDetection().evaluate(listener, roles, QrsProtocol(noise="muscle"), make_context())
    expected = noise.noisy_ecg(records[3], QrsProtocol(noise="muscle"), recorded_noise()).signals[0]
    assert np.array_equal(listener.heard[0], expected)
    with pytest.raises(ConfigError, match="given as noise"):
        QrsDetection().evaluate(listener, roles, QrsProtocol(), make_context())


@pytest.mark.parametrize("kind", PCG_KINDS)
def test_heart_sounds_with_noise(pcg, make_context, kind):
    records = (*pcg.records[:3], *pcg.records[60:62])
    data = replace(pcg, records=records)
    listener = Listener()
    protocol = HeartSoundProtocol(noise=kind, snr_db=3.0)
    HeartSoundSegmentation().evaluate(listener, {"train": data, "test": data}, protocol, make_context())
    assert all(np.array_equal(x, r.signal) for x, r in zip(listener.trained, records, strict=False))
    for heard, record in zip(listener.heard, records[3:], strict=True):
        extra = heard.astype(np.float64) - record.signal
        assert 20 * np.log10(record.signal.std() / extra.std()) == pytest.approx(3.0, abs=0.02)


def write_noise(folder, names=("bw", "ma", "em"), fs=100):
    """Write noise records of two channels of ten seconds."""
    import wfdb

    for i, name in enumerate(names):
        signals = (i + 1) * np.random.default_rng(i).normal(size=(1000, 2))
        units, leads = ["mV"] * 2, ["noise1", "noise2"]
        wfdb.wrsamp(name, fs, units, leads, p_signal=signals, fmt=["16"] * 2, write_dir=str(folder))


def requested(folder, *datasets, settings=("noise=muscle", "snr_db=0")):
    return plan(
        Request(
            tasks=["qrs-detection"],
            datasets=datasets,
            data_roots=[f"nstdb-noise={folder}"],
            methods=["xqrs"],
            settings=parse_assignments(settings),
            reference=False,
        ),
        get_registry(),
    )


def test_a_request_names_recorded_noise(tmp_path):
    pytest.importorskip("wfdb")
    write_noise(tmp_path)
    (first,) = requested(tmp_path, "noise=nstdb-noise").runs
    assert {role: ref.name for role, ref in first.run.data.items()} == {
        "train": "generated-ecg",
        "test": "generated-ecg",
        "noise": "nstdb-noise",
    }
    assert first.identity.protocol_changes["noise"] == "muscle"
    assert first.identity.protocol_changes["snr_db"] == 0.0
    (again,) = requested(tmp_path, "noise=nstdb-noise", "generated-ecg").runs  # in whatever order
    assert again.run.fingerprint == first.run.fingerprint
    write_noise(tmp_path, ("em", "ma", "bw"))
    (other,) = requested(tmp_path, "noise=nstdb-noise").runs
    assert other.run.fingerprint != first.run.fingerprint  # its content counts


def test_a_request_for_no_noise_is_that_of_before(tmp_path):
    request = Request(tasks=["qrs-detection"], methods=["xqrs"], reference=False)
    (planned,) = plan(request, get_registry()).runs
    assert planned.run.protocol == {"lead": "first"}
    assert planned.identity.protocol_changes == {}
    assert set(planned.run.data) == {"train", "test"}


def test_data_in_the_wrong_role_are_refused(tmp_path):
    pytest.importorskip("wfdb")
    write_noise(tmp_path)
    with pytest.raises(Incompatible, match=r"'generated-ecg' does not fit role 'noise' .*: nstdb-noise"):
        requested(tmp_path, "noise=generated-ecg")
    with pytest.raises(Incompatible, match="'nstdb-noise' does not fit task 'qrs-detection'"):
        requested(tmp_path, "nstdb-noise")
    with pytest.raises(ConfigError, match="there is no role 'nois' - did you mean 'noise'"):
        requested(tmp_path, "nois=nstdb-noise")
