"""Images with a mask for each class that they show: PASCAL-5i, FSS-1000, and a generated twin in PASCAL's layout."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec

_INSTALL = "pip install 'benchsuite[vision]'"
_SHARED: dict[str, Any] = {
    "data_type": "benchsuite.datasets.class_masks.images:ClassMasks",
    "requires": ("numpy", "PIL"),
    "install": _INSTALL,
}

# The third design of the sheet: symmetric scenes, and a palette of two hues that belongs to a class.
GENERATED: dict[str, Any] = {
    "size": 64,
    "train_scenes": 1200,
    "test_scenes_per_class": 20,
    "pool_train_per_class": 24,
    "pool_test_per_class": 8,
    "frequencies": [0.45, 0.6, 0.8, 1.05, 1.35, 1.7],
    "frequency_jitter": 0.07,
    "orientation": 20.0,
    "hue_jitter": 0.07,
    "radius": [0.2, 0.34],
    "least_visible": 0.04,
    "brightness": [0.8, 1.2],
    "noise": 0.04,
}
# The same with colours that say little: each object draws its hues almost anew.
GENERATED_WEAK: dict[str, Any] = {**GENERATED, "hue_jitter": 0.35}

DATASETS = (
    DatasetSpec(
        name="synth-fss",
        version="1",
        title="Generated scenes of three textured blobs, as PASCAL-5i: 20 classes, 40 more to pre-train on",
        load="benchsuite.datasets.class_masks.generated:load_generated",
        embedded=True,
        licence="Apache-2.0",
        parameters=GENERATED,
        **_SHARED,
    ),
    DatasetSpec(
        name="synth-fss-weak",
        version="1",
        title="The same with weak palettes: the hues of a class vary so much that colour says little",
        load="benchsuite.datasets.class_masks.generated:load_generated_weak",
        embedded=True,
        licence="Apache-2.0",
        parameters=GENERATED_WEAK,
        **_SHARED,
    ),
    DatasetSpec(
        name="pascal-5i",
        version="1",
        title="PASCAL-5i: the 20 classes of VOC 2012 with the masks of SBD, in four folds",
        load="benchsuite.datasets.class_masks.pascal:load_pascal",
        homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012",
        licence="images under the terms of Flickr",
        citation="A. Shaban et al.: One-shot learning for semantic segmentation, BMVC 2017",
        files=("splits/pascal/trn/fold*.txt", "splits/pascal/val/fold*.txt"),
        bulk_files=("VOC2012/JPEGImages/*.jpg", "VOC2012/SegmentationClassAug/*.png"),
        layout="splits/pascal/{trn,val}/fold{0..3}.txt, VOC2012/JPEGImages/ID.jpg, VOC2012/SegmentationClassAug/ID.png",
        **_SHARED,
    ),
    DatasetSpec(
        name="fss-1000",
        version="1",
        title="FSS-1000: 1,000 categories of ten images each",
        load="benchsuite.datasets.class_masks.fss1000:load_fss1000",
        homepage="https://github.com/HKUSTCV/FSS-1000",
        citation="X. Li et al.: FSS-1000: A 1000-class dataset for few-shot segmentation, CVPR 2020",
        files=("splits/fss/trn.txt", "splits/fss/val.txt", "splits/fss/test.txt"),
        bulk_files=("FSS-1000/*/*.jpg", "FSS-1000/*/*.png"),
        layout="splits/fss/{trn,val,test}.txt, FSS-1000/CATEGORY/{1..10}.jpg and .png",
        **_SHARED,
    ),
)
