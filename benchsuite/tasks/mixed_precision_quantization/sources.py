"""Data sets of labelled pictures as batches: what methods learn from, what the judge sees, what is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from benchsuite.core.errors import Incompatible
from benchsuite.datasets.image_folders.reader import ImageFolders, Part
from benchsuite.datasets.pictures import Pictures, centre_square, held_out, kept, normalised
from benchsuite.datasets.small_images.reader import SmallImages
from benchsuite.tasks.mixed_precision_quantization.contract import (
    QuantizationData,
    QuantizationProtocol,
)

__all__ = ["Batches", "Judged", "crop_flip", "parts_of", "relabelled", "resized_crop"]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PADDING = 4
_LEAST_AREA, _PROPORTIONS = 0.08, (3 / 4, 4 / 3)
_TRIES = 10


@dataclass(frozen=True, eq=False)
class Judged:
    """What is judged: names of pictures, their labels (N,) int64, and what the network sees."""

    names: tuple[str, ...] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    batches: Batches


class Batches:
    """Pictures as float32 batches (B, channels, size, size) on the CPU, normalised.

    Parameters
    ----------
    pictures
        Stored pictures.
    channels
        1 takes the first plane of grey pictures.
    mean, std
        Of the planes, where 255 is 1.
    protocol
        Size, crop and augmentation.
    """

    def __init__(
        self,
        pictures: Pictures,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        protocol: QuantizationProtocol,
    ) -> None:
        self.pictures, self.channels = pictures, channels
        self._mean, self._std = (tuple(v) * (3 // len(v)) for v in (mean, std))
        self._size, self._augment = protocol.size, protocol.augment
        size, crop = protocol.size, protocol.crop
        self._prepared = kept(pictures, lambda pixels: centre_square(pixels, size, crop), 3 * size * size)

    def prepared(self, places: Sequence[int]) -> Tensor:
        """Return pictures as the judge sees them."""
        return self._normalised([self._prepared(place) for place in places])

    def augmented(self, places: Sequence[int], generator: Generator) -> Tensor:
        """Return pictures as a training sees them."""
        if self._augment == "resized-crop":
            return self._normalised([resized_crop(self.pictures[p], self._size, generator) for p in places])
        pixels = [self._prepared(place) for place in places]
        if self._augment == "crop-flip":
            pixels = list(crop_flip(np.stack(pixels), generator))
        return self._normalised(pixels)

    def _normalised(self, pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
        return normalised(pixels, self._mean, self._std)[:, : self.channels]


def crop_flip(pixels: NDArray[np.uint8], generator: Generator) -> NDArray[np.uint8]:
    """Return pictures (B, S, S, 3), each padded by 4 black pixels, cut out at a random place, mirrored or not."""
    count, size = pixels.shape[:2]
    padded = np.pad(pixels, ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)))
    shifts = torch.randint(2 * _PADDING + 1, (count, 2), generator=generator).numpy()
    mirrored = (torch.rand(count, generator=generator) < 0.5).numpy()
    rows = shifts[:, :1] + np.arange(size)  # (B, S)
    columns = shifts[:, 1:] + np.where(mirrored[:, None], np.arange(size)[::-1], np.arange(size))
    found: NDArray[np.uint8] = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return found


def resized_crop(pixels: NDArray[np.uint8], size: int, generator: Generator) -> NDArray[np.uint8]:
    """Return a random part of a picture at the size, mirrored or not: 8 to 100 % of its area, sides 3:4 to 4:3."""
    from PIL import Image

    height, width = pixels.shape[:2]
    for _ in range(_TRIES):
        area, shape, down, across = torch.rand(4, generator=generator).tolist()
        area = height * width * (_LEAST_AREA + area * (1 - _LEAST_AREA))
        proportion = float(np.exp(np.log(_PROPORTIONS[0]) + shape * np.log(_PROPORTIONS[1] / _PROPORTIONS[0])))
        wide, high = round((area * proportion) ** 0.5), round((area / proportion) ** 0.5)
        if 0 < wide <= width and 0 < high <= height:
            top, left = int(down * (height - high + 1)), int(across * (width - wide + 1))
            pixels = pixels[top : top + high, left : left + wide]
            break
    else:
        side = min(height, width)
        pixels = pixels[(height - side) // 2 :, (width - side) // 2 :][:side, :side]
    found = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    return found[:, ::-1] if float(torch.rand((), generator=generator)) < 0.5 else found


def parts_of(data: Any, protocol: QuantizationProtocol, split: str) -> tuple[QuantizationData, Judged]:
    """Return what a method learns from and what is judged; for ``val`` that is a fifth of the training pictures.

    Raises
    ------
    Incompatible
        For data of a type that has no labelled pictures.
    """
    name, classes, channels, mean, std, train, test = _read(data)
    training, labels = train
    if split != "test":
        chosen = held_out(len(labels), labels)
        rest = np.setdiff1d(np.arange(len(labels)), chosen)
        test, train = _some(train, chosen), _some(train, rest.tolist())
        training, labels = train
    seen = Batches(training, channels, mean, std, protocol)
    digest = hashlib.sha256(repr((training.digest, mean, std, protocol.size, protocol.crop, protocol.augment)).encode())
    digest.update(np.ascontiguousarray(labels).tobytes())
    learned = QuantizationData(
        dataset=name,
        labels=labels,
        classes=classes,
        channels=channels,
        size=protocol.size,
        digest=digest.hexdigest(),
        prepared=seen.prepared,
        augmented=seen.augmented,
    )
    return learned, Judged(test[0].names, test[1], Batches(test[0], channels, mean, std, protocol))


def relabelled(data: Any) -> Any:
    """Return a data set whose test labels are all other ones."""
    if isinstance(data, SmallImages):
        return replace(data, test_labels=(data.test_labels + 1) % data.num_classes)
    return replace(data, test=Part(data.test.files, (data.test.labels + 1) % len(data.classes)))


_Labelled = tuple[Pictures, NDArray[np.int64]]


def _read(data: Any) -> tuple[str, int, int, Sequence[float], Sequence[float], _Labelled, _Labelled]:
    """Return name, number of classes and channels, mean, deviation, training and test part of a data set."""
    if isinstance(data, SmallImages):
        parts = [
            (_of_planes(images, part), labels)
            for part, images, labels in (
                ("train", data.train_images, data.train_labels),
                ("test", data.test_images, data.test_labels),
            )
        ]
        return data.name, data.num_classes, data.shape[0], data.mean, data.std, parts[0], parts[1]
    if isinstance(data, ImageFolders):
        parts = [(_of_files(data, data.train.files, data.training_digest), data.train.labels)]
        parts += [(_of_files(data, data.test.files, ""), data.test.labels)]
        return data.name, len(data.classes), 3, _IMAGENET_MEAN, _IMAGENET_STD, parts[0], parts[1]
    raise Incompatible(f"{type(data).__name__} holds no labelled pictures of one object each")


def _of_planes(images: NDArray[np.uint8], part: str) -> Pictures:
    """Return pictures of planes (N, C, H, W); a grey one is shown three times."""
    colours = np.broadcast_to(images, (len(images), 3, *images.shape[2:])).transpose(0, 2, 3, 1)
    names = tuple(f"{part}/{number}" for number in range(len(images)))
    return Pictures(names, lambda index: colours[index], hashlib.sha256(images.tobytes()).hexdigest())


def _of_files(data: ImageFolders, files: tuple[str, ...], digest: str) -> Pictures:
    return Pictures(files, lambda index: data.pixels(files[index]), digest)


def _some(part: _Labelled, places: Sequence[int]) -> _Labelled:
    pictures, labels = part
    chosen = list(places)
    names = tuple(pictures.names[place] for place in chosen)
    digest = hashlib.sha256(repr((pictures.digest, chosen)).encode()).hexdigest()
    return Pictures(names, lambda index: pictures[chosen[index]], digest), labels[chosen]
