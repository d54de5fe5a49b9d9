"""Pictures with a class for every pixel."""

from __future__ import annotations

from benchsuite.core import DatasetSpec

DATASETS = (
    DatasetSpec(
        name="ade20k",
        version="1",
        title="ADE20K scene parsing (ADEChallengeData2016): 20,210 training, 2,000 validation pictures, 150 classes",
        load="benchsuite.datasets.label_maps.ade20k:load_ade20k",
        data_type="benchsuite.datasets.label_maps.ade20k:LabelMaps",
        homepage="http://sceneparsing.csail.mit.edu",
        licence="research use, see the home page",
        citation="B. Zhou et al.: Scene parsing through ADE20K dataset, CVPR 2017",
        bulk_files=tuple(
            f"{kind}/{part}/ADE_*" for kind in ("images", "annotations") for part in ("training", "validation")
        ),
        layout="images/{training,validation}/ADE_*.jpg and annotations/{training,validation}/ADE_*.png",
        requires=("numpy", "PIL"),
        install="pip install 'benchsuite[vision]'",
    ),
)
