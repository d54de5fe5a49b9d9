"""Pictures of distilled sets: all synthetic images and the trigger on one sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.tasks.distillation_backdoors.contract import TrainingImages

_ZOOM = 2
_GAP = 2
_MOST_COLUMNS = 20
_GREY = 96


def write_contact_sheet(
    path: Path,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    trigger: NDArray[np.float32],
    training: TrainingImages,
) -> None:
    """Write a PNG: one row a class (the first 20 images of each), and a last row with the trigger.

    Normalised values are brought back to pixels and clipped. Since clipping hides how far a learnt trigger leaves
    the valid range, the last row shows it twice: clipped, and scaled so that its largest value is white.

    Parameters
    ----------
    path
        Where to write.
    images, labels
        (n, C, H, W) normalised synthetic images and (n,) their classes.
    trigger
        (C, H, W) normalised.
    training
        Tells mean and standard deviation.
    """
    from PIL import Image

    mean, std = (np.asarray(values)[:, None, None] for values in (training.mean, training.std))
    rows = [list(images[labels == c][:_MOST_COLUMNS] * std + mean) for c in np.unique(labels)]
    pixels = trigger * std + mean
    rows.append([pixels, pixels / max(float(np.abs(pixels).max()), 1e-12)])
    height = images.shape[2]
    columns, pitch = max(map(len, rows)), height + _GAP
    sheet = np.full((len(rows) * pitch + _GAP, columns * pitch + _GAP, 3), _GREY, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = _GAP + r * pitch, _GAP + c * pitch
            grey_or_colour = np.round(np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8).transpose(1, 2, 0)
            sheet[top : top + height, left : left + height] = grey_or_colour
    size = (sheet.shape[1] * _ZOOM, sheet.shape[0] * _ZOOM)
    Image.fromarray(sheet).resize(size, Image.Resampling.NEAREST).save(path)
