"""Small trees of files in the layouts of PASCAL-5i and FSS-1000."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write_pascal(root: Path, images_per_class: int = 3, classes: int = 20) -> Path:
    """Write pictures of one class each, in training and test lists; a frame of 255 around a square of the class."""
    for folder in ("VOC2012/JPEGImages", "VOC2012/SegmentationClassAug", "splits/pascal/trn", "splits/pascal/val"):
        (root / folder).mkdir(parents=True)
    for part in ("trn", "val"):
        lines: list[list[str]] = [[], [], [], []]
        for label in range(classes):
            for number in range(images_per_class):
                name = f"{part}_{label:02d}_{number}"
                Image.fromarray(picture(label)).save(root / f"VOC2012/JPEGImages/{name}.jpg")
                write_label_map(root / f"VOC2012/SegmentationClassAug/{name}.png", label + 1)
                lines[label // 5].append(f"{name}__{label + 1:02d}")
        for fold in range(4):
            (root / f"splits/pascal/{part}/fold{fold}.txt").write_text("\n".join(lines[fold]) + "\n")
    return root


def write_label_map(path: Path, value: int, height: int = 40, width: int = 50) -> None:
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[8:26, 9:31] = 255
    labels[10:24, 11:29] = value
    image = Image.fromarray(labels).convert("P")
    image.putpalette([channel for colour in range(256) for channel in (colour, 0, 0)])
    image.save(path)


def write_fss1000(root: Path) -> Path:
    (root / "splits/fss").mkdir(parents=True)
    for part, names in (("trn", ("zebra", "ant")), ("val", ("bat", "cat")), ("test", ("dog", "bee"))):
        (root / f"splits/fss/{part}.txt").write_text("\n".join(names))
        for name in names:
            folder = root / "FSS-1000" / name
            folder.mkdir(parents=True)
            for number in range(1, 11):
                Image.fromarray(picture(number, 36, 36)).save(folder / f"{number}.jpg")
                mask = np.zeros((36, 36, 3), dtype=np.uint8)
                mask[5:20, 6:25], mask[20, 6:25] = 255, 127
                Image.fromarray(mask).save(folder / f"{number}.png")
    return root
