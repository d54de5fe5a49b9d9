"""Noise on the test records of the cardiac tasks: as strong as the protocol says, the same for every method and seed.

The strength of noise on electrocardiograms is by default that of WFDB's ``nst`` (app/nst.c, app/sigamp.c): signal power
pp^2 / 8, where pp is the trimmed mean of the peak-to-peak amplitude within 50 ms of the first 300 normal beats; noise
power is the square of the trimmed mean of the root mean squares of the first 300 one-second windows. The largest and
the smallest 5 % are dropped. ``power`` is the plain ratio of variances: on sparse beats the two differ by several dB.

Which noise a record gets follows from its name and the kind of noise alone. Generated noise is made at the record's
sampling rate; its spectra and rhythms are choices made here, not a model of any recording.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchsuite.core.errors import ConfigError, DataError
from benchsuite.datasets.ecg.noise import NoiseDataset, NoiseRecord
from benchsuite.datasets.ecg.reader import UNNAMED_LEAD, EcgRecord, Integers
from benchsuite.datasets.pcg.reader import PcgRecord
from benchsuite.tasks.cardiac_signals.heart_sound_contract import HeartSoundProtocol
from benchsuite.tasks.cardiac_signals.qrs_contract import QrsProtocol
from benchsuite.tasks.cardiac_signals.recordings import lead_signal

Floats = NDArray[np.float64]

_MEASURED = 300  # beats, and seconds of noise, whose size counts
_TRIMMED = 0.05
_BEAT_S = 0.05
_CLEAN_S, _TURN_S = 300.0, 120.0


def noisy_ecg(record: EcgRecord, protocol: QrsProtocol, recorded: NoiseDataset | None = None) -> EcgRecord:
    """Return the record with noise on the lead that the protocol names; the record itself if there is no noise.

    Parameters
    ----------
    record
        Millivolts at any sampling rate.
    recorded
        Real noise, taken from a place that the record's name decides, resampled, and from the start again when it ends;
        None: generated noise.

    Raises
    ------
    ConfigError
        If there is recorded noise, but the protocol asks for none.
    DataError
        If the record has no beat to measure, is flat, or is too short for the timing of ``nst``.
    """
    if protocol.noise == "none":
        if recorded is not None:
            raise ConfigError(
                f"data {recorded.name} is given as noise, but noise=none: choose a kind (--set noise=...)"
            )
        return record
    signal = lead_signal(record, protocol).astype(np.float64)
    rng = _generator(protocol.noise, record.name)
    if recorded is None:
        noise = _ECG_NOISE[protocol.noise](len(signal), record.fs, rng)
        level, rate = noise, record.fs
    else:
        source = recorded.records[protocol.noise]
        channel = source.signals[_lead_number(record, protocol) % len(source.signals)].astype(np.float64)
        noise = _piece(channel, source, len(signal), record.fs, rng)
        level, rate = channel, source.fs
    if protocol.snr_rule == "nst":
        beats = record.beats if record.normal is None else record.normal
        height = _beat_height(signal, beats, record)
        gain = nst_gain(protocol.snr_db, height, windowed_rms(level, rate))
    else:
        gain = power_gain(protocol.snr_db, signal, noise, record.name)
    noisy = signal + gain * noise * _noisy_part(record, len(signal), protocol)
    lead = record.leads[_lead_number(record, protocol)]
    return replace(record, signals=noisy.astype(np.float32)[None], leads=(lead,))


def noisy_pcg(record: PcgRecord, protocol: HeartSoundProtocol) -> PcgRecord:
    """Return the record with generated noise throughout; the record itself if there is none.

    Raises
    ------
    DataError
        If the record is flat.
    """
    if protocol.noise == "none":
        return record
    signal = record.signal.astype(np.float64)
    noise = _PCG_NOISE[protocol.noise](len(signal), record.fs, _generator(protocol.noise, record.name))
    gain = power_gain(protocol.snr_db, signal, noise, record.name)
    return replace(record, signal=(signal + gain * noise).astype(np.float32))


def nst_gain(snr_db: float, height: float, noise_rms: float) -> float:
    """Return the factor on noise: signal power height^2 / 8 (a sine of that peak-to-peak), noise power (g rms)^2."""
    return float(10 ** (-snr_db / 20) * np.sqrt(2) / 4 * height / noise_rms)


def power_gain(snr_db: float, signal: Floats, noise: Floats, name: str) -> float:
    """Return the factor on noise for a ratio of variances; raises `DataError` for a flat signal."""
    if signal.std() == 0:
        raise DataError(f"record {name}: is flat, no noise has a ratio to it - remove the record")
    return float(10 ** (-snr_db / 20) * signal.std() / noise.std())


def beat_heights(signal: Floats, beats: Integers, fs: float) -> Floats:
    """Return the peak-to-peak amplitude within 50 ms of the first 300 beats that lie that far inside."""
    reach = round(_BEAT_S * fs)
    inside = beats[(beats >= reach) & (beats + reach < len(signal))][:_MEASURED]
    return np.asarray(np.ptp(signal[inside[:, None] + np.arange(-reach, reach + 1)], axis=1))


def _beat_height(signal: Floats, beats: Integers, record: EcgRecord) -> float:
    heights = beat_heights(signal, beats, record.fs)
    if len(heights) == 0 or trimmed_mean(heights) == 0:
        raise DataError(f"record {record.name}: no normal beat to measure the noise by - use --set snr_rule=power")
    return trimmed_mean(heights)


def windowed_rms(noise: Floats, fs: float) -> float:
    """Return the trimmed mean of the root mean squares of the first 300 one-second windows, each less its mean."""
    length = min(round(fs), len(noise))
    count = min(len(noise) // length, _MEASURED)
    return trimmed_mean(noise[: count * length].reshape(count, length).std(axis=1))


def trimmed_mean(values: Floats) -> float:
    """Return the mean without the largest and the smallest 5 %."""
    drop = int(_TRIMMED * len(values))
    return float(np.sort(values)[drop : len(values) - drop].mean())


def _lead_number(record: EcgRecord, protocol: QrsProtocol) -> int:
    return 0 if protocol.lead == "first" or record.leads == (UNNAMED_LEAD,) else record.leads.index(protocol.lead)


def _generator(kind: str, name: str) -> Generator:
    digest = hashlib.sha256(f"{kind}:{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _noisy_part(record: EcgRecord, length: int, protocol: QrsProtocol) -> Any:
    """Return 1 where there is noise: everywhere, or in turns of two minutes after five."""
    if protocol.noise_timing == "throughout":
        return 1.0
    seconds = np.arange(length) / record.fs
    if seconds[-1] < _CLEAN_S:
        raise DataError(
            f"record {record.name}: lasts {length / record.fs:.0f} s, and noise_timing=nst leaves the first 300 clean"
            " - use noise_timing=throughout"
        )
    return (seconds >= _CLEAN_S) & ((seconds - _CLEAN_S) // _TURN_S % 2 == 0)


def _piece(channel: Floats, source: NoiseRecord, length: int, fs: float, rng: Generator) -> Floats:
    """Return so many samples of recorded noise at another rate, from a drawn place on."""
    from scipy.signal import resample_poly

    ratio = Fraction(fs / source.fs).limit_denominator(10_000)
    needed = int(np.ceil(length / float(ratio))) + 1
    places = int(rng.integers(len(channel))) + np.arange(needed)
    piece = np.take(channel, places, mode="wrap")
    if ratio != 1:
        centre = piece.mean()  # resampling takes what lies outside for zero
        piece = resample_poly(piece - centre, ratio.numerator, ratio.denominator) + centre
    return np.asarray(piece[:length])


# ---- generated noise: (samples,) of any size


def _shaped(samples: int, fs: float, amplitude: Callable[[Floats], Floats], rng: Generator) -> Floats:
    """Return Gaussian noise whose spectrum has an amplitude, a function of frequencies in Hz; never the constant."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    frequencies = np.fft.rfftfreq(samples, 1 / fs)
    weights = np.where(frequencies > 0, amplitude(np.maximum(frequencies, 1e-9)), 0.0)
    return np.fft.irfft(spectrum * weights, samples)


def _band(low: float, high: float, slope: float = 0.0) -> Callable[[Floats], Floats]:
    """Return an amplitude that falls with a power of the frequency inside a band and is 0 outside."""
    return lambda f: np.where((f >= low) & (f <= high), f**-slope, 0.0)


def _slow(samples: int, fs: float, low: float, high: float, slope: float, rng: Generator) -> Floats:
    """Return slow noise of deviation 1, cut from at least a minute so that low frequencies are there."""
    noise = _shaped(max(samples, int(60 * fs)), fs, _band(low, high, slope), rng)
    return (noise / noise.std())[:samples]


def _onsets(samples: int, fs: float, every_s: float, rng: Generator) -> Integers:
    """Return random samples, one every so many seconds on average, at least one."""
    count = max(1, rng.poisson(samples / fs / every_s))
    return np.sort(rng.integers(samples, size=count))


def baseline_wander(samples: int, fs: float, rng: Generator) -> Floats:
    """Return 0.05 to 0.5 Hz with an amplitude of 1 / f."""
    return _slow(samples, fs, 0.05, 0.5, 1.0, rng)


def muscle(samples: int, fs: float, rng: Generator) -> Floats:
    """Return 20 to 150 Hz (at most .45 of the sampling rate) that swells and fades by a factor of about 2."""
    fast = _shaped(samples, fs, _band(min(20.0, 0.2 * fs), min(150.0, 0.45 * fs)), rng)
    return fast * np.exp(0.7 * _slow(samples, fs, 0.05, 0.5, 0.0, rng))


def electrode_motion(samples: int, fs: float, rng: Generator) -> Floats:
    """Return jolts, one in 1.5 s on average, that fall back in .1 to .8 s, below 15 Hz, on some baseline wander."""
    jolts = np.zeros(samples)
    for onset in _onsets(samples, fs, 1.5, rng):
        decay = np.exp(rng.uniform(np.log(0.1), np.log(0.8)))
        time = np.arange(min(samples - onset, int(6 * decay * fs) + 1)) / fs
        jolts[onset : onset + len(time)] += rng.normal() * np.exp(-time / decay)
    spectrum, frequencies = np.fft.rfft(jolts), np.fft.rfftfreq(samples, 1 / fs)
    smooth = np.fft.irfft(spectrum / np.sqrt(1 + (frequencies / 15.0) ** 4), samples)
    return smooth + 0.3 * smooth.std() * baseline_wander(samples, fs, rng)


def breath(samples: int, fs: float, rng: Generator) -> Floats:
    """Return 100 to 600 Hz, falling with the frequency, that swell with 12 to 21 breaths a minute."""
    fast = _shaped(samples, fs, _band(100.0, min(600.0, 0.45 * fs), 1.0), rng)
    phase = 2 * np.pi * (rng.uniform(0.2, 0.35) * np.arange(samples) / fs + rng.random())
    return fast * (0.05 + (0.5 - 0.5 * np.cos(phase)) ** 2)


def ambient(samples: int, fs: float, rng: Generator) -> Floats:
    """Return pink noise from 30 Hz on."""
    return _shaped(samples, fs, _band(30.0, 0.45 * fs, 0.5), rng)


def movement(samples: int, fs: float, rng: Generator) -> Floats:
    """Return rubs of 20 to 200 Hz, one in 2 s on average, each 50 to 400 ms long."""
    fast = _shaped(samples, fs, _band(20.0, 200.0), rng)
    envelope = np.zeros(samples)
    for onset in _onsets(samples, fs, 2.0, rng):
        shape = np.exp(0.5 * rng.normal()) * np.hanning(int(rng.uniform(0.05, 0.4) * fs) + 2)[1:-1]
        envelope[onset : onset + len(shape)] += shape[: samples - onset]
    return fast * envelope


_ECG_NOISE = {"baseline-wander": baseline_wander, "muscle": muscle, "electrode-motion": electrode_motion}
_PCG_NOISE = {"breath": breath, "ambient": ambient, "movement": movement}
