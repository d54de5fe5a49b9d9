"""The picture files of a COCO folder: where each lies, and its pixels without any loss."""

from __future__ import annotations

import filecmp
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError

_SPLIT_FOLDERS = ("train2017", "val2017", "train2014", "val2014")
_COMMON_FOLDERS = ("trainval2014", "images", ".")
_TURNED = (5, 6, 7, 8)  # the orientations of Exif that swap height and width


def find_pictures(root: Path, names: Sequence[str], file: Path) -> dict[str, str]:
    """Return where each picture that an annotation file names lies, as the file's own spelling to its path.

    ``instances_X.json`` reads the folder ``X`` where there is one. Else a picture may lie in any folder that is no
    other split's, and in one only (copies do not count). A name may hold sub-folders, of that folder or of the root.

    Raises
    ------
    DataError
        If a picture is missing, a name leaves the folder, or two folders hold different pictures of one name.
    """
    own = _own_folder(root, file)
    folders = (own,) if own else tuple(f for f in _possible_folders(file) if (root / f).is_dir())
    listing = _Listing(root)
    found: dict[str, str] = {}
    missing: list[str] = []
    for name in names:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise DataError(
                f"{file.name}: images are missing: {name!a} leaves the folder of images, name files inside it"
            )
        places = [folder for folder in folders if listing.has(folder, inside)]
        if "." not in folders and len(inside.parts) > 1 and listing.has(".", inside):
            places.append(".")
        paths = {os.path.realpath(root / place / inside): place for place in places}
        if len(paths) > 1 and not _same(list(paths)):
            where = " and in ".join(sorted(paths.values()))
            raise DataError(f"{file.name}: {name!a} lies in {where}, so its image cannot be told: keep one")
        if paths:
            found[name] = str(root / next(iter(paths.values())) / inside)
        else:
            missing.append(name)
    if missing:
        looked = ", ".join(f for f in folders if f != ".") or "no image folder"
        hint = listing.other_spelling(folders, PurePosixPath(missing[0]))
        raise DataError(
            f"{file.name}: {len(missing)} images are missing, e.g. {_plain(missing[0])} (looked in {looked}){hint}"
        )
    return found


def _same(paths: Sequence[str]) -> bool:
    """Return whether files hold the same bytes, so that it does not matter which is read."""
    return all(filecmp.cmp(paths[0], path, shallow=False) for path in paths[1:])


def _plain(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _own_folder(root: Path, file: Path) -> str | None:
    """Return the folder that belongs to an annotation file: ``X`` to ``instances_X.json``, trainval2014 to TFA's."""
    name = file.stem.removeprefix("instances_") if file.stem.startswith("instances_") else "trainval2014"
    return name if (root / name).is_dir() else None


def _possible_folders(file: Path) -> tuple[str, ...]:
    if file.stem.removeprefix("instances_") in _SPLIT_FOLDERS:
        return _COMMON_FOLDERS  # never those of another split
    return (*_SPLIT_FOLDERS, *_COMMON_FOLDERS)


class _Listing:
    """What lies in the folders below a root; each is listed once instead of asking for every file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, frozenset[str]] = {}

    def names(self, folder: Path) -> frozenset[str]:
        if folder not in self._known:
            try:
                with os.scandir(folder) as entries:
                    self._known[folder] = frozenset(entry.name for entry in entries)
            except (OSError, ValueError):
                self._known[folder] = frozenset()
        return self._known[folder]

    def has(self, folder: str, inside: PurePosixPath) -> bool:
        """Return whether a file lies there under exactly that name, in capitals as in small letters."""
        place = self._root / folder
        for part in inside.parts:
            if part not in self.names(place):
                return False
            place = place / part
        return bool(inside.parts)

    def other_spelling(self, folders: Sequence[str], inside: PurePosixPath) -> str:
        """Return a hint if there is a file whose name differs in capitals or the kind of slashes only."""
        wanted = inside.as_posix().replace("\\", "/").casefold()
        for name in self._all(folders):
            if name.casefold() == wanted:
                return f"; there is {name!a}: write file_name in the same way"
        return ""

    def _all(self, folders: Sequence[str]) -> Iterator[str]:
        for folder in folders:
            for name in sorted(self.names(self._root / folder)):
                yield name
                yield from (f"{name}/{inner}" for inner in sorted(self.names(self._root / folder / name)))


def read_pixels(path: str, height: int, width: int) -> NDArray[np.uint8]:
    """Return a picture, uint8 RGB (height, width, 3), exactly as it is stored.

    A picture that its camera turned (Exif) is turned as the annotated size says.

    Raises
    ------
    DataError
        If the file cannot be read, has another size than annotated, cannot be told which way it is turned, or holds
        what 8 bits of red, green and blue cannot: 16 bits, floats, inks (CMYK), transparency, several pictures.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is told below, in one line
            with Image.open(path) as image:
                problem = _unfit(image)
                turn = image.getexif().get(0x0112, 1)
                array = None if problem else _rgb(image)
    except Exception as error:  # readers of pictures fail in many ways
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: not a readable image ({type(error).__name__}: {reason})") from None
    if problem is None and array is None:
        problem = "has transparent pixels: save it without transparency"
    if problem is not None or array is None:
        raise DataError(f"{path}: {problem}")
    return _turned(array, turn, path, height, width)


def _unfit(image: Any) -> str | None:
    """Return why a picture cannot become 8 bits of red, green and blue without loss."""
    deep = any(";16" in str(tile[3]).replace("BGR;16", "") for tile in image.tile)  # BGR;16: 5 or 6 bits each
    if deep or image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        kind = "more than 8 bits a colour" if deep or image.mode[0] in "IF" else f"the colours {image.mode}"
        return f"a picture with {kind}: save it as RGB or grey with 8 bits"
    if image.format == "TIFF" and image.getexif().get(0x0112, 1) != 1:  # the library would turn it by itself
        return "a TIFF picture with an orientation: save the picture upright, without orientation"
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a JPEG with its own previews
        return f"holds {image.n_frames} pictures: save the one that is annotated"
    return None


def _rgb(image: Any) -> NDArray[np.uint8] | None:
    """Return the pixels, None if some are transparent."""
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            return None
    return np.array(image.convert("RGB"))


def _turned(array: NDArray[np.uint8], turn: Any, path: str, height: int, width: int) -> NDArray[np.uint8]:
    stored = array.shape[:2]
    seen = stored[::-1] if turn in _TURNED else stored
    if (height, width) not in (stored, seen):
        raise DataError(f"{path}: {stored[1]} x {stored[0]} pixels, annotated as {width} x {height}")
    if turn in (None, 0, 1) or seen != stored == (height, width):
        return array
    if seen == stored:
        raise DataError(
            f"{path}: its Exif orientation {turn} does not tell whether the annotations are of the turned picture:"
            " save the picture upright, without orientation"
        )
    turned = array.transpose(1, 0, 2)  # 5: rows become columns
    if turn in (7, 8):
        turned = turned[::-1]
    if turn in (6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)
