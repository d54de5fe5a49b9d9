"""The rows of CCI: a 1-D U-Net trained plainly or with contrastive causal intervention, for ECG and PCG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from benchsuite.core import DataError, RunContext
from benchsuite.tasks.cardiac_signals.heart_sound_contract import AnnotatedPcg, HeartSoundSegmenter, Segmentation
from benchsuite.tasks.cardiac_signals.qrs_contract import AnnotatedEcg, Detector, QrsDetector
from benchsuite_cci import ecg, pcg
from benchsuite_cci.config import CCIConfig, UNetConfig
from benchsuite_cci.network import UNet1d
from benchsuite_cci.training import Sampler, View, Views, predict, train

_MODEL_FILE = "model.pt"


class PlainUNet(QrsDetector, HeartSoundSegmenter):
    """The same network and training as `CCI` without interventions and contrast."""

    Config: ClassVar[type] = UNetConfig
    config: Any

    def fit_qrs(self, records: Sequence[AnnotatedEcg], ctx: RunContext) -> Detector:
        """See `QrsDetector.fit_qrs`."""
        config = self.config
        weights = torch.tensor([1.0, config.qrs_weight], device=ctx.device)
        network = self._network(1, 2, ctx)
        sources = [_EcgSource(record, config.rate) for record in records]
        self._fit(network, EcgSampler(sources, config), config.ecg_batch, weights, ctx)

        def detect(signal: NDArray[np.float32], fs: float) -> NDArray[np.int64]:
            x = ecg.normalise(ecg.prepare(signal, fs, config.rate))
            probability = np.exp(predict(network, x[None], ctx.device, margin=config.rate)[1])
            centres = ecg.decode(probability, config.rate)
            return np.unique(np.clip(np.round(centres * fs / config.rate), 0, len(signal) - 1).astype(np.int64))

        return Detector(detect, _parameters(network))

    def fit_heart_sounds(self, records: Sequence[AnnotatedPcg], ctx: RunContext) -> Segmentation:
        """See `HeartSoundSegmenter.fit_heart_sounds`."""
        config = self.config
        network = self._network(len(pcg.BANDS_HZ), 4, ctx)
        sources = [_PcgSource(record) for record in records]
        self._fit(network, PcgSampler(sources, config), config.pcg_batch, None, ctx)
        durations = pcg.Durations.of([source.states for source in sources])

        def segment(signal: NDArray[np.float32], fs: float) -> NDArray[np.int64]:
            log_probability = predict(network, pcg.normalise(pcg.band_energies(signal, fs)), ctx.device)
            if config.decoding == "duration-viterbi":
                return pcg.decode_with_durations(log_probability, durations)
            return log_probability.argmax(axis=0)

        return Segmentation(segment, _parameters(network))

    def forward_examples(self) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """Yield the two networks with a training crop each."""
        yield UNet1d(1, 2, self.config.widths), (torch.zeros(2, 1, self.config.ecg_crop),)
        yield (
            UNet1d(len(pcg.BANDS_HZ), 4, self.config.widths),
            (torch.zeros(2, len(pcg.BANDS_HZ), self.config.pcg_crop),),
        )

    def _network(self, channels: int, classes: int, ctx: RunContext) -> UNet1d:
        torch.manual_seed(ctx.seed_for("run", "network"))
        return UNet1d(channels, classes, self.config.widths).to(ctx.device)

    def _fit(self, network: UNet1d, sampler: Sampler, batch: int, weights: Any, ctx: RunContext) -> None:
        """Train, or load what ``--weights`` names; keep the model if it is wanted."""
        if ctx.weights is not None:
            _load(network, ctx)
        else:
            train(network, sampler, self.config, batch, weights, ctx)
        if "model" in ctx.wanted_artifacts:
            torch.save(network.state_dict(), ctx.artifact(_MODEL_FILE))


class CCI(PlainUNet):
    """Contrastive causal intervention: frames keep their embedding when shape or rhythm is intervened on."""

    Config = CCIConfig


class _EcgSource:
    """A training record at the rate of the network, and its beats there."""

    def __init__(self, record: AnnotatedEcg, rate: int) -> None:
        self.x = ecg.prepare(record.signal, record.fs, rate)
        beats = np.unique(np.round(record.beats * (rate / record.fs)).astype(np.int64))
        self.beats = beats[beats < len(self.x)]
        self.name = record.name


class EcgSampler:
    """Draws a crop of a random record and its interventions, normalised after the interventions."""

    def __init__(self, sources: Sequence[_EcgSource], config: UNetConfig) -> None:
        self._sources = [source for source in sources if len(source.x) >= config.ecg_crop and len(source.beats) > 1]
        if not self._sources:
            raise DataError(f"no training record has {config.ecg_crop / config.rate:g} s and two beats")
        self._config = config

    def __call__(self, rng: Generator) -> Views:
        """Draw."""
        config, length = self._config, self._config.ecg_crop
        source = self._sources[rng.integers(len(self._sources))]
        window = min(2 * length, len(source.x))
        at = int(rng.integers(len(source.x) - window + 1))
        x = source.x[at : at + window]
        beats = _reaching(source.beats, at, at + window, config.rate) - at
        start = int(rng.integers(window - length + 1))
        plain = self._view(x[start : start + length], beats - start, np.arange(length))
        if not isinstance(config, CCIConfig):
            return Views(plain)
        morphology = rhythm = None
        if config.morphology:
            donor = self._sources[rng.integers(len(self._sources))]
            other = ecg.intervene_on_morphology(
                x, beats, donor.x, donor.beats, config.rate, ecg.BeatShape.draw(rng), rng
            )
            morphology = self._view(other[start : start + length], beats - start, np.arange(length))
        if config.rhythm:
            rhythm = self._other_rhythm(x, beats, start, rng) or plain
        return Views(plain, morphology, rhythm)

    def _other_rhythm(self, x: ecg.Floats, beats: ecg.Integers, start: int, rng: Generator) -> View | None:
        """Return the crop in another rhythm; None if the source is too short for it."""
        length, rate = self._config.ecg_crop, self._config.rate
        intervals = ecg.draw_intervals(max(len(beats), 2), rng)
        for first in (start, start // 2, 0):
            ahead = _reaching(beats, first, len(x), rate) - first
            mapped = ecg.map_rhythm(ahead, len(x) - first, intervals, rate)
            if len(mapped.source) >= length:
                source = mapped.source[:length] + first
                original = np.round(source).astype(np.int64) - start
                original[(original < 0) | (original >= length)] = -1
                return self._view(ecg.take(x, source), mapped.beats, original)
        return None

    def _view(self, x: ecg.Floats, beats: ecg.Integers, original: ecg.Integers) -> View:
        labels = ecg.label_frames(beats.astype(np.float64), len(x), self._config.rate)
        return View(ecg.normalise(x)[None], labels, original)


def _reaching(beats: ecg.Integers, first: int, stop: int, rate: int) -> ecg.Integers:
    """Return the beats with labelled frames in [first, stop): those up to 60 ms outside of it too."""
    reach = round(ecg.LABEL_S * rate)
    return beats[(beats >= first - reach) & (beats < stop + reach)]


class _PcgSource:
    """A training record as band energies, its states, and its sounds as a donor."""

    def __init__(self, record: AnnotatedPcg) -> None:
        self.energies = pcg.band_energies(record.signal, record.fs)
        self.states = record.states.astype(np.int64)
        self.bank = pcg.SoundBank.of(self.energies, self.states)


class PcgSampler:
    """Draws a crop of a random record and its interventions, normalised after the interventions."""

    def __init__(self, sources: Sequence[_PcgSource], config: UNetConfig) -> None:
        self._sources = [source for source in sources if len(source.states) >= config.pcg_crop]
        if not self._sources:
            raise DataError(f"no training record has {config.pcg_crop} frames of 20 ms")
        self._config = config

    def __call__(self, rng: Generator) -> Views:
        """Draw."""
        config, length = self._config, self._config.pcg_crop
        source = self._sources[rng.integers(len(self._sources))]
        window = min(2 * length, len(source.states))
        at = int(rng.integers(len(source.states) - window + 1))
        energies, states = source.energies[:, at : at + window], source.states[at : at + window]
        start = int(rng.integers(window - length + 1))
        here = slice(start, start + length)
        plain = View(pcg.normalise(energies[:, here]), states[here], np.arange(length))
        if not isinstance(config, CCIConfig):
            return Views(plain)
        morphology = rhythm = None
        if config.morphology:
            bank = self._sources[rng.integers(len(self._sources))].bank
            other = pcg.intervene_on_morphology(energies, states, bank, rng)
            morphology = View(pcg.normalise(other[:, here]), states[here], np.arange(length))
        if config.rhythm:
            rhythm = self._other_rhythm(energies, states, start, rng) or plain
        return Views(plain, morphology, rhythm)

    def _other_rhythm(self, energies: pcg.Floats, states: pcg.Integers, start: int, rng: Generator) -> View | None:
        """Return the crop in another rhythm; None if the source is too short for it."""
        length = self._config.pcg_crop
        for first in (start, start // 2, 0):
            source = pcg.map_rhythm(states[first:], rng) + first
            if len(source) >= length:
                source = source[:length]
                nearest = np.round(source).astype(np.int64)
                original = nearest - start
                original[(original < 0) | (original >= length)] = -1
                return View(pcg.normalise(pcg.take(energies, source)), states[nearest], original)
        return None


def _parameters(network: UNet1d) -> int:
    return sum(p.numel() for p in network.parameters())


def _load(network: UNet1d, ctx: RunContext) -> None:
    try:
        network.load_state_dict(torch.load(ctx.weights, map_location=ctx.device, weights_only=True))
    except Exception as error:  # torch raises many kinds for a file that is no state dict of this network
        text = " ".join(str(error).split())[:160]
        raise DataError(f"{ctx.weights}: not a saved network of this row ({type(error).__name__}: {text})") from None
    network.eval()
