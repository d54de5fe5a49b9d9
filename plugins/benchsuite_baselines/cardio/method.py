"""Classical detectors of heart beats (library code) and of heart sounds (peaks of an envelope, a semi-Markov model)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import RunContext
from benchsuite.datasets.pcg.reader import DIASTOLE, FRAMES_PER_SECOND, S1, S2, SYSTOLE, frame_count
from benchsuite.tasks.cardiac_signals.heart_sound_contract import AnnotatedPcg, HeartSoundSegmenter, Segmentation
from benchsuite.tasks.cardiac_signals.qrs_contract import AnnotatedEcg, Detector, QrsDetector
from benchsuite_baselines.cardio.config import EcgDetectorsConfig, EnvelopeConfig, HsmmConfig, NeuroKitConfig

Signal = NDArray[np.float32]
Integers = NDArray[np.int64]

# Algorithms of NeuroKit2 that only find peaks: they are given its own cleaning.
_WITHOUT_CLEANING = ("rodrigues2021", "christov2004")


class NeuroKit(QrsDetector):
    """``ecg_clean`` and ``ecg_peaks`` of NeuroKit2 for one algorithm, without correction of artefacts."""

    Config: ClassVar[type] = NeuroKitConfig

    def fit_qrs(self, records: Sequence[AnnotatedEcg], ctx: RunContext) -> Detector:
        """See `QrsDetector.fit_qrs`; nothing is learnt."""
        import neurokit2

        algorithm = self.config.algorithm
        cleaning = "neurokit" if algorithm in _WITHOUT_CLEANING else algorithm

        def detect(signal: Signal, fs: float) -> Integers:
            rate = int(fs) if float(fs).is_integer() else fs
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cleaned = neurokit2.ecg_clean(signal.astype(np.float64), sampling_rate=rate, method=cleaning)
                _, found = neurokit2.ecg_peaks(cleaned, sampling_rate=rate, method=algorithm, correct_artifacts=False)
            return _inside(found["ECG_R_Peaks"], len(signal))

        return Detector(detect)


class Xqrs(QrsDetector):
    """``wfdb.processing.xqrs_detect`` with its defaults."""

    def fit_qrs(self, records: Sequence[AnnotatedEcg], ctx: RunContext) -> Detector:
        """See `QrsDetector.fit_qrs`; nothing is learnt."""
        from wfdb.processing import xqrs_detect

        def detect(signal: Signal, fs: float) -> Integers:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _inside(xqrs_detect(sig=signal.astype(np.float64), fs=fs, verbose=False), len(signal))

        return Detector(detect)


class Gqrs(QrsDetector):
    """``wfdb.processing.gqrs_detect`` with its defaults: thresholds are absolute, so it wants millivolts."""

    def fit_qrs(self, records: Sequence[AnnotatedEcg], ctx: RunContext) -> Detector:
        """See `QrsDetector.fit_qrs`; nothing is learnt."""
        from wfdb.processing import gqrs_detect

        def detect(signal: Signal, fs: float) -> Integers:
            if np.ptp(signal) == 0:  # its conversion to integers divides by the range
                return np.empty(0, dtype=np.int64)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _inside(gqrs_detect(sig=signal.astype(np.float64), fs=fs), len(signal))

        return Detector(detect)


class EcgDetectors(QrsDetector):
    """A detector of py-ecg-detectors, given volts as its documentation asks.

    With a rate of its own the signal is resampled to it (polyphase), and the marks are scaled back to the record.
    """

    Config: ClassVar[type] = EcgDetectorsConfig

    def fit_qrs(self, records: Sequence[AnnotatedEcg], ctx: RunContext) -> Detector:
        """See `QrsDetector.fit_qrs`; nothing is learnt."""
        from ecgdetectors import Detectors
        from scipy.signal import resample_poly

        name, rate = f"{self.config.algorithm}_detector", self.config.rate

        def detect(signal: Signal, fs: float) -> Integers:
            volts = signal.astype(np.float64) / 1000
            ratio = Fraction(rate / fs).limit_denominator(10_000) if rate else Fraction(1)
            if ratio != 1:
                volts = resample_poly(volts, ratio.numerator, ratio.denominator)
            try:
                found = getattr(Detectors(fs * float(ratio)), name)(volts)
            except IndexError as error:
                if str(error) != "pop from empty list":
                    raise
                found = []  # how the library says that it found nothing
            return _inside(np.round(np.asarray(found, dtype=np.float64) / float(ratio)), len(signal))

        return Detector(detect)


class SleepEcg(QrsDetector):
    """``sleepecg.detect_heartbeats`` with its defaults."""

    def fit_qrs(self, records: Sequence[AnnotatedEcg], ctx: RunContext) -> Detector:
        """See `QrsDetector.fit_qrs`; nothing is learnt."""
        from sleepecg import detect_heartbeats

        def detect(signal: Signal, fs: float) -> Integers:
            return _inside(detect_heartbeats(signal.astype(np.float64), fs), len(signal))

        return Detector(detect)


def _inside(found: Any, length: int) -> Integers:
    """Return detections as ascending sample indices; libraries may repeat one or step outside."""
    samples = np.unique(np.asarray(found, dtype=np.float64).ravel())
    samples = samples[np.isfinite(samples)].astype(np.int64)
    return np.unique(samples[(samples >= 0) & (samples < length)])


class SemiMarkov(HeartSoundSegmenter):
    """The hidden semi-Markov model of Schmidt 2010 and Springer 2016: see `hsmm`.

    Learnt are the four logistic regressions of the emissions and the lengths of S1 and S2; the lengths of systole and
    diastole follow from each recording's heart rate.
    """

    Config: ClassVar[type] = HsmmConfig

    def fit_heart_sounds(self, records: Sequence[AnnotatedPcg], ctx: RunContext) -> Segmentation:
        """See `HeartSoundSegmenter.fit_heart_sounds`; nothing is drawn: every seed learns the same."""
        from benchsuite_baselines.cardio import hsmm

        config = self.config
        labelled = [record.states >= 0 for record in records]
        features = np.concatenate(
            [hsmm.envelopes(r.signal, r.fs)[inside] for r, inside in zip(records, labelled, strict=True)]
        )
        states = np.concatenate([r.states[inside] for r, inside in zip(records, labelled, strict=True)])
        steps = config.newton_steps
        weights = np.stack([hsmm.fit_one_against_rest(features, states, s, steps) for s in hsmm.STATES])
        lengths = hsmm.SoundLengths.of(record.states for record in records)

        def segment(signal: Signal, fs: float) -> Integers:
            found = hsmm.envelopes(signal, fs)
            cycle, systolic = hsmm.heart_cycle(found[:, 0], config.shortest_cycle, config.longest_cycle)
            durations = hsmm.duration_table(lengths, cycle, systolic)
            return hsmm.likeliest_states(hsmm.log_emissions(found, weights), durations)

        return Segmentation(segment, parameters=weights.size + 4)


class EnvelopePeaks(HeartSoundSegmenter):
    """Segmentation without learning: peaks of an energy envelope, S1 before the shorter of two pauses.

    The heart cycle is the highest peak of the envelope's autocorrelation within its bounds; envelope peaks at least a
    fifth of a cycle apart are sounds; systole is taken to be the shorter pause, by the parity that makes it so on the
    whole record.
    """

    Config: ClassVar[type] = EnvelopeConfig

    def fit_heart_sounds(self, records: Sequence[AnnotatedPcg], ctx: RunContext) -> Segmentation:
        """See `HeartSoundSegmenter.fit_heart_sounds`; nothing is learnt."""
        config = self.config

        def segment(signal: Signal, fs: float) -> Integers:
            frames = frame_count(len(signal), fs)
            envelope = shannon_envelope(signal, fs, config.low, config.high, frames)
            cycle = heart_cycle(envelope, config.shortest_cycle, config.longest_cycle)
            return label_sounds(envelope, cycle, config.threshold)

        return Segmentation(segment)


def shannon_envelope(signal: Signal, fs: float, low: float, high: float, frames: int) -> NDArray[np.float64]:
    """Return the smoothed Shannon energy (frames,) of a band, every 20 ms, with mean 0 and deviation 1."""
    from scipy.signal import butter, sosfiltfilt

    sections = butter(2, (low, min(high, 0.45 * fs)), "bandpass", fs=fs, output="sos")
    x = sosfiltfilt(sections, signal.astype(np.float64))
    x = x / max(float(np.abs(x).max()), 1e-12)
    energy = -(x**2) * np.log(np.maximum(x**2, 1e-12))
    smooth = np.maximum(sosfiltfilt(butter(2, 10, "lowpass", fs=fs, output="sos"), energy), 0)
    middle = np.minimum((np.arange(frames) + 0.5) / FRAMES_PER_SECOND * fs, len(x) - 1)
    envelope = np.sqrt(np.interp(middle, np.arange(len(x)), smooth))
    return np.asarray((envelope - envelope.mean()) / max(float(envelope.std()), 1e-12))


def heart_cycle(envelope: NDArray[np.float64], shortest: float, longest: float) -> float:
    """Return the heart cycle in frames: where the autocorrelation of the envelope is highest."""
    low = round(shortest * FRAMES_PER_SECOND)
    high = min(round(longest * FRAMES_PER_SECOND), len(envelope) - 2)
    if high <= low:
        return float(low)
    correlation = np.correlate(envelope, envelope, mode="full")[len(envelope) - 1 :]
    return float(low + int(correlation[low : high + 1].argmax()))


def label_sounds(envelope: NDArray[np.float64], cycle: float, threshold: float) -> Integers:
    """Return the state of every frame from the peaks of the envelope."""
    from scipy.signal import find_peaks

    peaks, _ = find_peaks(envelope, height=threshold, distance=max(1, round(0.2 * cycle)))
    states = np.full(len(envelope), DIASTOLE, dtype=np.int64)
    if len(peaks) == 0:
        return states
    gaps = np.diff(peaks)
    first_is_s1 = len(gaps) < 2 or np.median(gaps[::2]) <= np.median(gaps[1::2])
    sounds = np.where(np.arange(len(peaks)) % 2 == (0 if first_is_s1 else 1), S1, S2)
    for peak, sound, following in zip(peaks, sounds, [*peaks[1:], len(states)], strict=True):
        if sound == S1:
            states[peak:following] = SYSTOLE
    for peak, sound in zip(peaks, sounds, strict=True):
        states[max(peak - 2, 0) : peak + 3] = sound
    return states
