"""Reading single pictures and label maps, with one-line errors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError

_RGB_MODES = ("RGB", "L", "CMYK")


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Return a picture, uint8 RGB (H, W, 3), as it is stored: grey is repeated, inks become colours as PIL does it.

    ImageNet holds some grey pictures and some with inks (CMYK); the official loaders read them so. As there, an
    orientation by the camera (Exif) is not applied.

    Raises
    ------
    DataError
        If the file cannot be read to its end, has transparency, a palette or more than 8 bits a colour.
    """
    image = _load(path, str(path))
    if image.mode not in _RGB_MODES or "transparency" in image.info:
        kind = "transparency" if "transparency" in image.info else image.mode
        raise DataError(f"{path}: stores its pixels as {kind}: needs RGB or grey with 8 bits, save it so")
    return np.asarray(image.convert("RGB"))


def read_label_map(file: Path | BinaryIO, name: str = "") -> NDArray[np.uint8]:
    """Return a label map, uint8 (H, W): grey values or palette indices exactly as stored.

    Parameters
    ----------
    file
        To read.
    name
        What messages call it; its path if empty.

    Raises
    ------
    DataError
        If the file cannot be read to its end, or stores colours or more than 8 bits instead of labels.
    """
    name = name or str(file)
    image = _load(file, name)
    if image.mode not in ("L", "P"):
        raise DataError(f"{name}: stores its pixels as {image.mode}: a label map is grey or has a palette, with 8 bits")
    return np.asarray(image)


def size_of(path: Path) -> tuple[int, int]:
    """Return height and width of a picture as its head gives them; raises `DataError` if it has none."""
    width, height = _load(path, str(path), whole=False).size
    return height, width


def _load(file: Path | BinaryIO, name: str, whole: bool = True) -> Any:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is told below, in one line
            with Image.open(file) as image:
                if whole:
                    image.load()
                return image
    except FileNotFoundError:
        raise DataError(f"{name}: is missing: complete the data set") from None
    except Exception as error:  # readers of pictures fail in many ways
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{name}: not a readable picture ({type(error).__name__}: {reason})") from None
