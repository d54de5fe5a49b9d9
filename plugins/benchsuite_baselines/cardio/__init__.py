"""Classical detectors of heart beats and heart sounds: none draws at random, and all but ``hsmm`` learn nothing."""

from __future__ import annotations

from typing import Any

from benchsuite.core import MethodSpec, Preset

_SHARED: dict[str, Any] = {
    "version": "1",
    "role": "baseline",
    "install": "pip install 'benchsuite[cardio]'",
    "card": "benchsuite_baselines:README.md",
}


def _qrs(name: str, title: str, cls: str, library: str, algorithm: str = "") -> MethodSpec:
    settings = {"algorithm": algorithm} if algorithm else {}
    return MethodSpec(
        name=name,
        title=title,
        tasks=("qrs-detection",),
        load=f"benchsuite_baselines.cardio.method:{cls}",
        config=f"benchsuite_baselines.cardio.config:{cls}Config" if algorithm else "benchsuite.core.method:NoSettings",
        presets={"embedded": Preset(settings), "paper": Preset(settings)},
        requires=("numpy", library),
        **_SHARED,
    )


def _of_ecg_detectors(name: str, whose: str, algorithm: str) -> MethodSpec:
    return _qrs(f"ecgdetectors-{name}", f"{whose}, of py-ecg-detectors", "EcgDetectors", "ecgdetectors", algorithm)


METHODS = (
    _qrs("neurokit", "NeuroKit2's own detector", "NeuroKit", "neurokit2", "neurokit"),
    _qrs("pan-tompkins", "Pan and Tompkins 1985, of NeuroKit2", "NeuroKit", "neurokit2", "pantompkins1985"),
    _qrs("rodrigues", "Rodrigues et al. 2021, of NeuroKit2", "NeuroKit", "neurokit2", "rodrigues2021"),
    _qrs("xqrs", "XQRS of WFDB", "Xqrs", "wfdb"),
    _qrs("gqrs", "GQRS of WFDB", "Gqrs", "wfdb"),
    _qrs("sleepecg", "SleepECG's detector", "SleepEcg", "sleepecg"),
    _of_ecg_detectors("hamilton", "Hamilton 2002", "hamilton"),
    _of_ecg_detectors("christov", "Christov 2004", "christov"),
    _of_ecg_detectors("two-average", "Elgendi et al. 2010", "two_average"),
    _of_ecg_detectors("swt", "Kalidas and Tamil 2017 (stationary wavelets)", "swt"),
    _of_ecg_detectors("pan-tompkins", "Pan and Tompkins 1985", "pan_tompkins"),
    MethodSpec(
        name="envelope-peaks",
        title="peaks of the Shannon energy envelope, told apart by the shorter pause",
        tasks=("heart-sound-segmentation",),
        load="benchsuite_baselines.cardio.method:EnvelopePeaks",
        config="benchsuite_baselines.cardio.config:EnvelopeConfig",
        presets={"embedded": Preset(), "paper": Preset()},
        requires=("numpy", "scipy"),
        **_SHARED,
    ),
    MethodSpec(
        name="hsmm",
        title="hidden semi-Markov model after Schmidt 2010 and Springer 2016",
        tasks=("heart-sound-segmentation",),
        load="benchsuite_baselines.cardio.method:SemiMarkov",
        config="benchsuite_baselines.cardio.config:HsmmConfig",
        presets={"embedded": Preset(), "paper": Preset({"shortest_cycle": 0.5})},
        requires=("numpy", "scipy"),
        **_SHARED,
    ),
)
