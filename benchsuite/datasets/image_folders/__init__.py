"""Pictures sorted into one folder a class, as ImageNet is."""

from __future__ import annotations

from benchsuite.core import DatasetSpec

DATASETS = (
    DatasetSpec(
        name="imagenet",
        version="1",
        title="ImageNet-1K: 1.28 million training and 50,000 validation pictures of 1,000 classes; other class folders",
        load="benchsuite.datasets.image_folders.reader:load_imagenet",
        data_type="benchsuite.datasets.image_folders.reader:ImageFolders",
        homepage="https://www.image-net.org",
        licence="research only, see the home page",
        citation="O. Russakovsky et al.: ImageNet large scale visual recognition challenge, IJCV 2015",
        bulk_files=("train/*/*", "val/*/*"),
        layout="train/CLASS/*.JPEG and val/CLASS/*.JPEG, one folder a class (the validation pictures sorted so)",
        requires=("numpy", "PIL"),
        install="pip install 'benchsuite[vision]'",
    ),
)
