"""Generated images of textured shapes in the COCO format: the embedded twin of COCO for few-shot segmentation.

A class is a shape with a texture. Every novel class shares its shape with one base class and its texture with others,
so that neither alone tells it. Colour carries no class. Easier than COCO: few base images show a novel object.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchsuite.datasets.coco import GENERATED_PARAMETERS, GENERATED_VERSION
from benchsuite.datasets.coco.reader import CocoDataset, encode_mask, read_folder
from benchsuite.datasets.written_folders import written_once

SHAPES = ("disk", "square", "tri", "cross", "star", "ring")
TEXTURES = ("hstripe", "check", "dots", "plain")
CLASSES = tuple(f"{SHAPES[c % 6]}-{TEXTURES[(c + c // 6) % 4]}" for c in range(12))
NOVEL = (9, 10, 11, 12)

_ATTEMPTS = 60


def load_generated(root: Path | None, draw: int) -> CocoDataset:
    """Return the generated images of a draw, written to the cache as COCO files and read by the ordinary reader."""
    folder = written_once(f"synth-fsis-{GENERATED_VERSION}-{draw}", partial(write_dataset, draw=draw))
    return read_folder(folder, "synth-fsis")


def write_dataset(folder: Path, draw: int) -> None:
    """Write ``annotations/instances_{train,val}2017.json`` and PNG images of a draw."""
    rng = np.random.default_rng([1156, draw])
    base = [c for c in range(1, 13) if c not in NOVEL]
    train = [_scene(rng, _classes(rng, base, (1, 3))) for _ in range(GENERATED_PARAMETERS["train_base"])]
    train += [_scene(rng, _with_novel(rng, (1, 3))) for _ in range(GENERATED_PARAMETERS["train_novel"])]
    test = [_scene(rng, _with_novel(rng, (2, 3))) for _ in range(GENERATED_PARAMETERS["test"])]
    _write_part(folder, "train2017", train, first_image=1)
    _write_part(folder, "val2017", test, first_image=len(train) + 1)


def _classes(rng: Generator, available: list[int], count: tuple[int, int]) -> list[int]:
    return rng.choice(available, size=rng.integers(count[0], count[1] + 1)).tolist()


def _with_novel(rng: Generator, count: tuple[int, int]) -> list[int]:
    """Return classes of which at least one is novel."""
    chosen = _classes(rng, list(range(1, 13)), count)
    chosen[0] = int(rng.choice(NOVEL))
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _write_part(
    folder: Path,
    part: str,
    scenes: list[tuple[NDArray[np.uint8], list[tuple[int, NDArray[np.bool_]]]]],
    first_image: int,
) -> None:
    from PIL import Image

    (folder / part).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (pixels, objects) in enumerate(scenes, start=first_image):
        name = f"{number:012d}.png"
        Image.fromarray(pixels).save(folder / part / name, compress_level=1)
        images.append({"id": number, "width": pixels.shape[1], "height": pixels.shape[0], "file_name": name})
        for category, mask in objects:
            rows, columns = np.nonzero(mask)
            x, y = int(columns.min()), int(rows.min())
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": encode_mask(mask),
                }
            )
    data = {
        "info": {"description": "generated textured shapes", "novel_category_ids": list(NOVEL)},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)],
    }
    (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(data))


def _scene(rng: Generator, classes: list[int]) -> tuple[NDArray[np.uint8], list[tuple[int, NDArray[np.bool_]]]]:
    """Draw objects of some classes on a mosaic; later ones are cut by earlier ones, none much."""
    pixels = _background(rng)
    taken = np.zeros(pixels.shape[:2], dtype=bool)
    objects = []
    for category in classes:
        for _ in range(_ATTEMPTS):
            shape, texture = _place(rng, category)
            visible = shape & ~taken
            if visible.sum() >= (1 - GENERATED_PARAMETERS["overlap"]) * shape.sum():
                break
        else:
            continue  # no room left
        first, second = _two_colours(rng)
        pixels[visible] = np.where(texture[visible, None], first, second)
        taken |= visible
        objects.append((category, visible))
    noisy = pixels + rng.normal(0, 6, size=pixels.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), objects


def _background(rng: Generator) -> NDArray[np.float64]:
    size = GENERATED_PARAMETERS["size"]
    tiles = rng.uniform(60, 190, size=(size // 8, size // 8, 3))
    return tiles.repeat(8, axis=0).repeat(8, axis=1)


def _two_colours(rng: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a bright and a dark colour of random hues."""
    hues = rng.uniform(0, 2 * np.pi, size=2)
    waves = np.cos(hues[:, None] - np.array([0, 2, 4]) * np.pi / 3)
    return 180 + 70 * waves[0], 60 + 50 * waves[1]


def _place(rng: Generator, category: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the mask and the texture of one object at a random place."""
    size = GENERATED_PARAMETERS["size"]
    radius = rng.uniform(*GENERATED_PARAMETERS["radius"])
    centre = rng.uniform(radius * 0.9, size - radius * 0.9, size=2)
    angle = rng.uniform(-GENERATED_PARAMETERS["rotation"], GENERATED_PARAMETERS["rotation"])
    rows, columns = np.mgrid[0:size, 0:size] + 0.5
    y, x = rows - centre[0], columns - centre[1]
    u = (np.cos(angle) * x + np.sin(angle) * y) / radius
    v = (-np.sin(angle) * x + np.cos(angle) * y) / radius
    shape, texture = CLASSES[category - 1].split("-")
    period = rng.uniform(4.5, 6.5) / radius
    return _shape(shape, u, v), _texture(texture, u, v, period)


def _shape(name: str, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where a shape of radius 1 is."""
    distance, direction = np.hypot(u, v), np.arctan2(u, -v)
    if name == "disk":
        return distance <= 0.95
    if name == "square":
        return np.maximum(abs(u), abs(v)) <= 0.85
    if name == "tri":
        return (v <= 0.75) & (abs(u) <= (v + 1.0) * 0.58)
    if name == "cross":
        return (np.minimum(abs(u), abs(v)) <= 0.32) & (np.maximum(abs(u), abs(v)) <= 0.98)
    if name == "star":
        return distance <= 0.7 + 0.32 * np.cos(5 * direction)
    return (distance <= 0.98) & (distance >= 0.48)


def _texture(name: str, u: NDArray[np.float64], v: NDArray[np.float64], period: float) -> NDArray[np.bool_]:
    """Return where the first of an object's two colours is."""
    across, down = np.floor(2 * u / period), np.floor(2 * v / period)
    if name == "hstripe":
        return down % 2 == 0
    if name == "check":
        return (across + down) % 2 == 0
    if name == "dots":
        return np.hypot((u / period) % 1 - 0.5, (v / period) % 1 - 0.5) >= 0.3
    return np.ones_like(u, dtype=bool)
