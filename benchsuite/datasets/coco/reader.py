"""Images with instance annotations in the COCO format, split into training and test images.

Read are the layouts of COCO 2014 and 2017, the split files of TFA (``trainvalno5k.json`` and ``5k.json``), and any
folder with one annotation file, which is then split here. Format: cocodataset.org.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, DatasetNotFound

LAYOUT = "annotations/instances_*.json (or TFA's datasplit/*.json) and the folders of images that they name"

_IMAGE_FOLDERS = ("train2017", "val2017", "trainval2014", "train2014", "val2014", "images", ".")
_SPLIT_FILES = (
    ("cocosplit/datasplit/trainvalno5k.json", "cocosplit/datasplit/5k.json"),
    ("datasplit/trainvalno5k.json", "datasplit/5k.json"),
    ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
    ("annotations/instances_train2014.json", "annotations/instances_val2014.json"),
)
_TEST_SHARE = 0.3

Annotation = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Instance:
    """One object: its mask (H, W) bool and its box (x, y, w, h) in pixels."""

    category_id: int
    mask: NDArray[np.bool_]
    box: tuple[float, float, float, float]
    iscrowd: bool
    annotation_id: int


@dataclass(frozen=True)
class Record:
    """One image with some of its annotations; pixels and masks are decoded when asked for."""

    image_id: int
    height: int
    width: int
    file: str
    annotations: tuple[Annotation, ...] = ()

    def pixels(self) -> NDArray[np.uint8]:
        """Return the image, uint8 RGB (H, W, 3).

        Raises
        ------
        DataError
            If the file cannot be read or has another size than annotated.
        """
        from PIL import Image

        try:
            with Image.open(self.file) as image:
                array = np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.file}: not a readable image ({error})") from None
        if array.shape[:2] != (self.height, self.width):
            raise DataError(
                f"{self.file}: {array.shape[1]} x {array.shape[0]} pixels, annotated as {self.width} x {self.height}"
            )
        return array

    def instances(self) -> tuple[Instance, ...]:
        """Return the annotated objects, crowd regions included."""
        return tuple(
            Instance(
                category_id=int(a["category_id"]),
                mask=decode_mask(a["segmentation"], self.height, self.width),
                box=(float(a["bbox"][0]), float(a["bbox"][1]), float(a["bbox"][2]), float(a["bbox"][3])),
                iscrowd=bool(a.get("iscrowd", 0)),
                annotation_id=int(a["id"]),
            )
            for a in self.annotations
        )


class ImageSet(Sequence[Record]):
    """Annotated images in a fixed order.

    ``digest`` identifies the content: two sets with the same digest hold the same images and annotations.

    Parameters
    ----------
    records
        The images; each holds its annotations in the order of the file.
    source
        Identifies the file.
    places
        Annotation id to its place in the file, for files that do not list annotations image by image; None: as the
        images come.
    """

    def __init__(self, records: Iterable[Record], source: str, places: Mapping[int, int] | None = None) -> None:
        self._records = tuple(records)
        self.source = source
        self._places = places
        parts = [source] + [f"{r.image_id}:{','.join(_identity(a) for a in r.annotations)}" for r in self._records]
        self.digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return self._records[index]

    def annotations(self) -> list[Annotation]:
        """Return the annotations of all images in the order of the file."""
        found = [a for record in self._records for a in record.annotations]
        if self._places is None:
            return found
        places = self._places
        return sorted(found, key=lambda a: places[int(a["id"])])

    def part(self, records: Iterable[Record], source: str = "") -> ImageSet:
        """Return some of these images, or some of their annotations, in the same order of the file."""
        kept = tuple(records)
        places = self._places
        if places is not None:
            places = {int(a["id"]): places[int(a["id"])] for record in kept for a in record.annotations}
        return ImageSet(kept, source or self.source, places)

    def with_classes(self, classes: Iterable[int]) -> ImageSet:
        """Return the images that show a countable object of some classes, with the annotations of these classes."""
        kept = frozenset(classes)
        records = [_only(record, kept) for record in self._records]
        return self.part(r for r in records if any(not a.get("iscrowd", 0) for a in r.annotations))

    def ground_truth(self, classes: Iterable[int]) -> dict[str, Any]:
        """Return all images with the annotations of some classes as a COCO data set (crowds included)."""
        kept = frozenset(classes)
        return {
            "images": [{"id": r.image_id, "height": r.height, "width": r.width} for r in self._records],
            "annotations": [dict(a) for r in self._records for a in r.annotations if a["category_id"] in kept],
            "categories": [{"id": c, "name": str(c)} for c in sorted(kept)],
        }


def _identity(annotation: Annotation) -> str:
    return f"{annotation['id']}/{annotation['category_id']}"


def _only(record: Record, classes: frozenset[int]) -> Record:
    return replace(record, annotations=tuple(a for a in record.annotations if a["category_id"] in classes))


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """Training and test images with their classes.

    Attributes
    ----------
    categories
        Category id to name, in ascending order of ids.
    train, test
        All images with all annotations.
    novel
        Category ids of the novel classes if the data themselves say so, else None.
    root
        The folder read from.
    note
        What the reader decided by itself, in one line; else empty.
    """

    name: str
    categories: Mapping[int, str]
    train: ImageSet
    test: ImageSet
    novel: tuple[int, ...] | None = None
    root: Path | None = None
    note: str = field(default="")


def load_coco(root: Path | None, draw: int) -> CocoDataset:
    """Read COCO data under ``root``; with one annotation file 30 % of its images become the test part.

    Raises
    ------
    DatasetNotFound
        If there is no annotation file.
    DataError
        For broken files: one line that names the file and what is wrong.
    """
    if root is None:
        raise DatasetNotFound(f"give the folder with {LAYOUT}: --data-root DIR")
    return read_folder(root, "coco")


def read_folder(root: Path, name: str) -> CocoDataset:
    """See `load_coco`."""
    pair = next((p for p in _SPLIT_FILES if all((root / f).is_file() for f in p)), None)
    if pair is not None:
        (categories, train, info), (_, test, _) = (read_annotations(root / file, root) for file in pair)
        return CocoDataset(name, categories, train, test, _novel(info, categories), root)
    single = sorted((root / "annotations").glob("instances_*.json"))
    if not single:
        raise DatasetNotFound(f"{root}: holds no annotation file; expected {LAYOUT}")
    if len(single) > 1:
        names = ", ".join(file.name for file in single)
        raise DataError(f"{root}: {names} are no training and test files that belong together; expected {LAYOUT}")
    categories, images, info = read_annotations(single[0], root)
    if len(images) < 2:
        raise DataError(f"{single[0]}: {len(images)} images are too few to split into training and test")
    order = np.random.default_rng(0).permutation(len(images))
    chosen = set(order[: max(1, round(_TEST_SHARE * len(images)))].tolist())
    train, test = (
        images.part(r for i, r in enumerate(images) if (i in chosen) == is_test) for is_test in (False, True)
    )
    note = f"only {single[0].name} is there: {len(test)} of its {len(images)} images became the test part"
    return CocoDataset(name, categories, train, test, _novel(info, categories), root, note)


def _novel(info: Mapping[str, Any], categories: Mapping[int, str]) -> tuple[int, ...] | None:
    ids = info.get("novel_category_ids")
    if ids is None:
        return None
    return tuple(sorted(int(i) for i in ids if int(i) in categories))


def read_annotations(file: Path, root: Path) -> tuple[dict[int, str], ImageSet, dict[str, Any]]:
    """Return the categories, the annotated images and the ``info`` of one COCO file.

    Raises
    ------
    DataError
        For json that is broken or not COCO, unknown categories or images, annotation ids that are not positive and
        unique (scorers take id 0 for "no match"), masks that cannot be decoded, and images that are missing.
    """
    try:
        content = file.read_bytes()
        data = json.loads(content)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable json file ({error})") from None
    if not isinstance(data, dict) or not all(
        isinstance(data.get(k), list) for k in ("images", "annotations", "categories")
    ):
        raise DataError(f"{file}: not a COCO file: needs lists of images, annotations and categories")
    try:
        categories = {int(c["id"]): str(c["name"]) for c in data["categories"]}
        images = {int(i["id"]): i for i in data["images"]}
        by_image = _annotations_by_image(data["annotations"], images, categories, file)
        found = _image_files(root, [str(i["file_name"]) for i in images.values()], file)
        records = [
            Record(key, int(i["height"]), int(i["width"]), found[str(i["file_name"])], tuple(by_image.get(key, ())))
            for key, i in sorted(images.items())
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: an entry lacks or garbles a field ({type(error).__name__}: {error})") from None
    if len(images) != len(data["images"]):
        raise DataError(f"{file}: an image id occurs twice")
    info = data.get("info")
    source = hashlib.sha256(content).hexdigest()
    places = {int(annotation["id"]): place for place, annotation in enumerate(data["annotations"])}
    found_info = info if isinstance(info, dict) else {}
    return dict(sorted(categories.items())), ImageSet(records, source, places), found_info


def _annotations_by_image(
    annotations: Sequence[Annotation], images: Mapping[int, Any], categories: Mapping[int, str], file: Path
) -> dict[int, list[Annotation]]:
    seen: set[int] = set()
    by_image: dict[int, list[Annotation]] = {}
    for annotation in annotations:
        number, image, category = (int(annotation[key]) for key in ("id", "image_id", "category_id"))
        if number <= 0 or number in seen:
            raise DataError(f"{file}: annotation id {number} is not positive and unique: number them from 1")
        if category not in categories:
            raise DataError(f"{file}: annotation {number} has the unknown category {category}")
        if image not in images:
            raise DataError(f"{file}: annotation {number} belongs to the unknown image {image}")
        _check_geometry(annotation, number, file)
        seen.add(number)
        by_image.setdefault(image, []).append(annotation)
    return by_image


def _check_geometry(annotation: Annotation, number: int, file: Path) -> None:
    box, shape = annotation["bbox"], annotation["segmentation"]
    if len(box) != 4 or not all(np.isfinite(float(v)) for v in box) or not np.isfinite(float(annotation["area"])):
        raise DataError(f"{file}: annotation {number} needs a bbox of four numbers and an area")
    if isinstance(shape, dict):
        if "counts" not in shape or "size" not in shape:
            raise DataError(f"{file}: annotation {number} has a run-length mask without size or counts")
    elif not shape or any(len(polygon) < 6 or len(polygon) % 2 for polygon in shape):
        raise DataError(f"{file}: annotation {number} needs polygons of at least three points (x, y, x, y, ...)")


def _image_files(root: Path, names: Iterable[str], file: Path) -> dict[str, str]:
    """Return where each image lies; folders are listed once instead of asking for every file."""
    wanted = list(names)
    listed = {
        folder: {entry.name for entry in os.scandir(root / folder)}
        for folder in _IMAGE_FOLDERS
        if (root / folder).is_dir()
    }
    found: dict[str, str] = {}
    for name in wanted:
        folder = next((f for f, entries in listed.items() if Path(name).name in entries), None)
        if folder is not None and Path(name).name == name:
            found[name] = str(root / folder / name)
        elif (root / name).is_file() and ".." not in Path(name).parts:
            found[name] = str(root / name)
    missing = [name for name in wanted if name not in found]
    if missing:
        folders = ", ".join(f for f in listed if f != ".") or "no image folder"
        raise DataError(f"{file.name}: {len(missing)} images are missing, e.g. {missing[0]} (looked in {folders})")
    return found


def decode_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask (H, W) of polygons or of a run-length code (lists or strings).

    Raises
    ------
    DataError
        If it cannot be decoded to that size.
    """
    from hotcoco import mask as masks

    try:
        encoded = encode_segmentation(segmentation, height, width)
        decoded = np.asarray(masks.decode(encoded)).astype(bool)
    except Exception as error:  # the library raises many kinds
        raise DataError(f"a mask cannot be decoded ({type(error).__name__}: {error})") from None
    if decoded.shape != (height, width):
        raise DataError(f"a mask has the size {decoded.shape}, its image {(height, width)}")
    return decoded


def encode_segmentation(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Return polygons or any run-length code as a compressed run-length code."""
    from hotcoco import mask as masks

    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            encoded = masks.fr_py_objects(segmentation, height, width)
            return dict(encoded[0] if isinstance(encoded, list) else encoded)
        return segmentation
    parts = masks.fr_py_objects([list(map(float, polygon)) for polygon in segmentation], height, width)
    return dict(masks.merge(parts))


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask (H, W) as a run-length code for json: ``size`` and ``counts`` as text."""
    from hotcoco import mask as masks

    encoded = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = encoded["counts"]
    return {"size": list(map(int, encoded["size"])), "counts": counts.decode() if isinstance(counts, bytes) else counts}
