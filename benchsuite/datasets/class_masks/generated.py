"""Generated scenes in the layout of PASCAL-5i, written once a draw and read by PASCAL's reader.

A scene has a background of a pool texture and three lobed blobs of three different classes in a random order of depth,
each visible. Any of them may be the target: nothing but the support tells which. A training scene takes its classes
from two of the four folds, so that about half of the scenes serve any one fold; a test scene takes one class by turns
and two of all. Forty categories that are no class of any scene are the pool: backgrounds, and pictures to pre-train a
backbone on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchsuite.datasets.class_masks import DATASETS, GENERATED, GENERATED_WEAK
from benchsuite.datasets.class_masks.images import Pool
from benchsuite.datasets.class_masks.pascal import FOLDS, Pascal, read_pascal
from benchsuite.datasets.class_masks.textures import Category, categories, draw
from benchsuite.datasets.written_folders import written_once

_CLASSES = 20
_BLOBS = 3
_ATTEMPTS = 200
_QUALITY = 95
# Which categories there are is part of the generator, not of a draw.
_CATEGORY_SEED = 2203

Pixels = NDArray[np.float64]


def load_generated(root: Path | None, draw: int) -> Pascal:
    """Return the generated scenes of a draw."""
    return _load("synth-fss", GENERATED, draw)


def load_generated_weak(root: Path | None, draw: int) -> Pascal:
    """Return the scenes with weak palettes of a draw."""
    return _load("synth-fss-weak", GENERATED_WEAK, draw)


def _load(name: str, parameters: Mapping[str, Any], number: int) -> Pascal:
    version = next(spec.version for spec in DATASETS if spec.name == name)
    write = partial(write_dataset, parameters=parameters, number=number)
    folder = written_once(f"{name}-{version}-{number}", write)
    return read_generated(folder, name)


def read_generated(folder: Path, name: str) -> Pascal:
    """Return a written draw, read by the reader of PASCAL-5i, with its pool."""
    found = _categories(GENERATED)
    names = [category.name for category in found]
    parts = {}
    for part in ("train", "test"):
        files = [(name, sorted((folder / "pool" / part / name).glob("*.jpg"))) for name in names[_CLASSES:]]
        parts[part] = tuple((str(file), label) for label, (_, listed) in enumerate(files) for file in listed)
    pool = Pool(tuple(names[_CLASSES:]), parts["train"], parts["test"])
    return read_pascal(folder, name, tuple(names[:_CLASSES]), pool)


def _categories(parameters: Mapping[str, Any]) -> tuple[Category, ...]:
    """Return the 20 classes, then the 40 categories of the pool."""
    return categories(np.random.default_rng(_CATEGORY_SEED), parameters["frequencies"])


def write_dataset(folder: Path, parameters: Mapping[str, Any], number: int) -> None:
    """Write pictures, label maps, lists and the pool of a draw (see `GENERATED` for the parameters)."""
    rng = np.random.default_rng([_CATEGORY_SEED, number])
    found = _categories(parameters)
    pool = found[_CLASSES:]
    for place in ("VOC2012/JPEGImages", "VOC2012/SegmentationClassAug"):
        (folder / place).mkdir(parents=True)
    shown: dict[str, list[tuple[str, int]]] = {"trn": [], "val": []}
    leads = [c for c in range(_CLASSES) for _ in range(parameters["test_scenes_per_class"])]
    drawn = [("trn", _classes_of_two_folds(rng)) for _ in range(parameters["train_scenes"])]
    drawn += [("val", _classes_led_by(rng, lead)) for lead in leads]
    for number_of_scene, (part, classes) in enumerate(drawn):
        image = f"{part}_{number_of_scene:06d}"
        pixels, labels = _scene(rng, classes, found, pool, parameters)
        _save(folder / "VOC2012/JPEGImages" / f"{image}.jpg", pixels)
        _save_labels(folder / "VOC2012/SegmentationClassAug" / f"{image}.png", labels)
        shown[part] += [(image, c) for c in sorted(classes)]
    for part, lines in shown.items():
        (folder / "splits/pascal" / part).mkdir(parents=True)
        for fold, of_the_fold in enumerate(FOLDS):
            text = [f"{image}__{c + 1:02d}" for image, c in lines if c in of_the_fold]
            (folder / "splits/pascal" / part / f"fold{fold}.txt").write_text("\n".join(text) + "\n")
    for part in ("train", "test"):
        for category in pool:
            own = folder / "pool" / part / category.name
            own.mkdir(parents=True)
            for picture in range(parameters[f"pool_{part}_per_class"]):
                full = draw(rng, category, parameters["size"], parameters)
                _save(own / f"{picture:02d}.jpg", _lit(rng, full, parameters))


def _classes_of_two_folds(rng: Generator) -> list[int]:
    pairs = list(combinations(range(len(FOLDS)), 2))
    first, second = pairs[rng.integers(len(pairs))]
    return [int(c) for c in rng.choice([*FOLDS[first], *FOLDS[second]], size=_BLOBS, replace=False)]


def _classes_led_by(rng: Generator, lead: int) -> list[int]:
    others = [c for c in range(_CLASSES) if c != lead]
    return [lead, *(int(c) for c in rng.choice(others, size=_BLOBS - 1, replace=False))]


def _scene(
    rng: Generator,
    classes: Sequence[int],
    found: Sequence[Category],
    pool: Sequence[Category],
    parameters: Mapping[str, Any],
) -> tuple[Pixels, NDArray[np.uint8]]:
    """Return a scene, (size, size, 3) in [0, 1], and its label map: 0 background, else class + 1."""
    size = parameters["size"]
    labels = _layout(rng, classes, parameters)
    pixels = draw(rng, pool[int(rng.integers(len(pool)))], size, parameters)
    for c in classes:
        texture = draw(rng, found[c], size, parameters)
        here = labels == c + 1
        pixels[here] = texture[here]
    return _lit(rng, pixels, parameters), labels


def _layout(rng: Generator, classes: Sequence[int], parameters: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return a label map in which every class is visible on at least ``least_visible`` of the image."""
    size, least = parameters["size"], parameters["least_visible"]
    for _ in range(_ATTEMPTS):
        labels = np.zeros((size, size), dtype=np.uint8)
        for place in rng.permutation(len(classes)):
            labels[_blob(rng, size, parameters["radius"])] = classes[place] + 1
        if all((labels == c + 1).mean() >= least for c in classes):
            return labels
    raise RuntimeError(f"no layout of {len(classes)} blobs in {_ATTEMPTS} attempts: lower least_visible")


def _blob(rng: Generator, size: int, radii: Sequence[float]) -> NDArray[np.bool_]:
    """Return a lobed blob: a circle whose radius swings with the direction."""
    centre = rng.uniform(0.2 * size, 0.8 * size, size=2)
    radius = rng.uniform(radii[0], radii[1]) * size
    rows, columns = np.mgrid[0:size, 0:size] + 0.5
    direction = np.arctan2(rows - centre[0], columns - centre[1])
    swing = sum(rng.uniform(0, 0.22) * np.cos(lobes * direction + rng.uniform(0, 2 * np.pi)) for lobes in (2, 3, 5))
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius * (1 + swing)


def _lit(rng: Generator, pixels: Pixels, parameters: Mapping[str, Any]) -> Pixels:
    """Return a picture under other light, with noise."""
    lit = pixels * rng.uniform(*parameters["brightness"])
    return np.clip(lit + rng.normal(0, parameters["noise"], size=pixels.shape), 0, 1)


def _save(path: Path, pixels: Pixels) -> None:
    from PIL import Image

    Image.fromarray((255 * pixels + 0.5).astype(np.uint8)).save(path, quality=_QUALITY, subsampling=0)


def _save_labels(path: Path, labels: NDArray[np.uint8]) -> None:
    from PIL import Image

    Image.fromarray(labels).save(path, compress_level=1)
