"""Phonocardiograms with the state of the heart in every 20 ms."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec

_INSTALL = "pip install 'benchsuite[cardio]'"

_PCG: dict[str, Any] = {
    "data_type": "benchsuite.datasets.pcg.reader:PcgDataset",
    "requires": ("numpy", "scipy", "wfdb"),
    "install": _INSTALL,
}

_PHYSIONET = "A. Goldberger et al.: PhysioBank, PhysioToolkit, and PhysioNet, Circulation 101(23), 2000"

# The one copy: the generator reads it, and the data hash covers it.
GENERATED: dict[str, Any] = {
    "fs": 1000,
    "train": {"records": 60, "seconds": 16, "snr_db": [6, 18], "slow_bpm": [60, 75], "fast_bpm": [95, 115]},
    "test": {"records": 12, "seconds": 20, "snr_db": [4, 14], "irregular_bpm": [55, 130]},
}

DATASETS = (
    DatasetSpec(
        name="generated-pcg",
        version="2",
        title="Generated phonocardiograms: sound and rhythm confounded in training, taken apart in the test",
        load="benchsuite.datasets.pcg.generated:load_generated",
        data_type="benchsuite.datasets.pcg.reader:PcgDataset",
        embedded=True,
        licence="Apache-2.0",
        parameters=GENERATED,
        requires=("numpy", "scipy"),
    ),
    DatasetSpec(
        name="circor2022",
        version="1",
        title="CirCor DigiScope 2022: heart sounds of children, partly annotated",
        load="benchsuite.datasets.pcg.reader:load_circor2022",
        homepage="https://physionet.org/content/circor-heart-sound/1.0.3/",
        licence="ODC-BY 1.0",
        citation=f"J. Oliveira et al., IEEE Journal of Biomedical and Health Informatics 26(6), 2022; {_PHYSIONET}",
        files=("*.hea", "*.tsv", "*.wav"),
        layout="*.hea, *.wav, *.tsv (training_data/ of the database)",
        **_PCG,
    ),
    DatasetSpec(
        name="cinc2016",
        version="1",
        title="PhysioNet/CinC Challenge 2016: heart sounds with corrected states",
        load="benchsuite.datasets.pcg.reader:load_cinc2016",
        homepage="https://physionet.org/content/challenge-2016/1.0.0/",
        licence="ODC-BY 1.0",
        citation=f"C. Liu et al., Physiological Measurement 37(12), 2016; {_PHYSIONET}",
        files=("**/*_StateAns.mat", "**/*.wav"),
        layout="training-a/*.wav .. training-f/*.wav, annotations/hand_corrected/*/*_StateAns.mat",
        **_PCG,
    ),
    DatasetSpec(
        name="springer",
        version="1",
        title="Springer's examples: heart sounds of adults with R peaks and ends of T waves",
        load="benchsuite.datasets.pcg.reader:load_springer",
        homepage="https://github.com/davidspringer/Springer-Segmentation-Code",
        licence="GPL-3.0 (of the repository; none is given for the data)",
        citation="D. Springer, L. Tarassenko, G. Clifford, IEEE Transactions on Biomedical Engineering 63(4), 2016",
        files=("*.npz",),
        layout="*.npz with pcg, fs, r_peaks_50hz, t_ends_50hz",
        **_PCG,
    ),
)
