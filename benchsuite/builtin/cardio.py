"""The tasks and data sets on electrocardiograms and phonocardiograms."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec, TaskSpec

_INSTALL = "pip install 'benchsuite[cardio]'"
_ECG: dict[str, Any] = {
    "data_type": "benchsuite.datasets.ecg:EcgDataset",
    "requires": ("numpy", "scipy", "wfdb"),
    "install": _INSTALL,
}
_PCG: dict[str, Any] = {
    "data_type": "benchsuite.datasets.pcg:PcgDataset",
    "requires": ("numpy", "scipy", "wfdb"),
    "install": _INSTALL,
}
_PHYSIONET = "A. Goldberger et al.: PhysioBank, PhysioToolkit, and PhysioNet, Circulation 101(23), 2000"
_ARRHYTHMIA = f"G. Moody, R. Mark, IEEE Engineering in Medicine and Biology 20(3), 2001; {_PHYSIONET}"

TASKS = (
    TaskSpec(
        name="qrs-detection",
        title="QRS detection in electrocardiograms",
        load="benchsuite.tasks.qrs_detection:QrsDetection",
        requires=("numpy", "scipy", "matplotlib"),
        install=_INSTALL,
        scaffold="benchsuite.testing:scaffolds/qrs_detection.txt",
    ),
    TaskSpec(
        name="heart-sound-segmentation",
        title="Segmentation of heart sounds in phonocardiograms",
        load="benchsuite.tasks.heart_sound_segmentation:HeartSoundSegmentation",
        requires=("numpy", "scipy", "matplotlib"),
        install=_INSTALL,
        scaffold="benchsuite.testing:scaffolds/heart_sound_segmentation.txt",
    ),
)

DATASETS = (
    DatasetSpec(
        name="generated-ecg",
        version="1",
        title="Generated electrocardiograms: shape and rhythm confounded in training, taken apart in the test",
        load="benchsuite.datasets.ecg_generator:load_generated",
        data_type="benchsuite.datasets.ecg:EcgDataset",
        embedded=True,
        licence="Apache-2.0",
        parameters={
            "fs": 250,
            "train": {"records": 60, "seconds": 10.24, "snr_db": [6, 20], "slow_bpm": [55, 75], "fast_bpm": [95, 120]},
            "test": {"records": 16, "seconds": 30, "snr_db": [4, 16], "irregular_bpm": [50, 150]},
        },
        requires=("numpy",),
    ),
    DatasetSpec(
        name="mitdb",
        version="1",
        title="MIT-BIH Arrhythmia Database: half-hour records, without the four paced ones",
        load="benchsuite.datasets.ecg:load_mitdb",
        homepage="https://physionet.org/content/mitdb/1.0.0/",
        licence="ODC-BY 1.0",
        citation=_ARRHYTHMIA,
        files=("*.hea", "*.dat", "*.atr"),
        layout="*.hea, *.dat, *.atr",
        **_ECG,
    ),
    DatasetSpec(
        name="svdb",
        version="1",
        title="MIT-BIH Supraventricular Arrhythmia Database: half-hour records",
        load="benchsuite.datasets.ecg:load_svdb",
        homepage="https://physionet.org/content/svdb/1.0.0/",
        licence="ODC-BY 1.0",
        citation=_PHYSIONET,
        files=("*.hea", "*.dat", "*.atr"),
        layout="*.hea, *.dat, *.atr",
        **_ECG,
    ),
    DatasetSpec(
        name="cpsc2019",
        version="1",
        title="China Physiological Signal Challenge 2019: ten-second segments",
        load="benchsuite.datasets.ecg:load_cpsc2019",
        homepage="http://2019.icbeb.org/Challenge.html",
        licence="research use",
        citation="H. Gao, C. Liu, X. Wang et al., Journal of Medical Imaging and Health Informatics 9, 2019",
        files=("data/data_*.mat", "ref/R_*.mat"),
        layout="data/data_NNNNN.mat (ecg), ref/R_NNNNN.mat (R_peak)",
        **_ECG,
    ),
    DatasetSpec(
        name="generated-pcg",
        version="1",
        title="Generated phonocardiograms: sound and rhythm confounded in training, taken apart in the test",
        load="benchsuite.datasets.pcg_generator:load_generated",
        data_type="benchsuite.datasets.pcg:PcgDataset",
        embedded=True,
        licence="Apache-2.0",
        parameters={
            "fs": 1000,
            "train": {"records": 60, "seconds": 16, "snr_db": [6, 18], "slow_bpm": [60, 75], "fast_bpm": [95, 115]},
            "test": {"records": 12, "seconds": 20, "snr_db": [4, 14], "irregular_bpm": [55, 130]},
        },
        requires=("numpy", "scipy"),
    ),
    DatasetSpec(
        name="circor2022",
        version="1",
        title="CirCor DigiScope 2022: heart sounds of children, partly annotated",
        load="benchsuite.datasets.pcg:load_circor2022",
        homepage="https://physionet.org/content/circor-heart-sound/1.0.3/",
        licence="ODC-BY 1.0",
        citation=f"J. Oliveira et al., IEEE Journal of Biomedical and Health Informatics 26(6), 2022; {_PHYSIONET}",
        files=("*.hea", "*.tsv", "*.wav"),
        layout="*.hea, *.wav, *.tsv (training_data/ of the database)",
        **_PCG,
    ),
    DatasetSpec(
        name="springer",
        version="1",
        title="Springer's examples: heart sounds of adults with R peaks and ends of T waves",
        load="benchsuite.datasets.pcg:load_springer",
        homepage="https://github.com/davidspringer/Springer-Segmentation-Code",
        licence="GPL-3.0 (of the repository; none is given for the data)",
        citation="D. Springer, L. Tarassenko, G. Clifford, IEEE Transactions on Biomedical Engineering 63(4), 2016",
        files=("*.npz",),
        layout="*.npz with pcg, fs, r_peaks_50hz, t_ends_50hz",
        **_PCG,
    ),
)
