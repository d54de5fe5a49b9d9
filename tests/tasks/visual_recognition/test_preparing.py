"""What a network sees: held against torchvision, OpenCV where it is, and formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("PIL")

import torch
from PIL import Image

from benchsuite.datasets.pictures import Pictures, centre_square, kept, normalised
from benchsuite.tasks.visual_recognition.preparing import bounded_size, nearest, padded_batch, resized, up_to


def _picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


@settings(max_examples=25)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(4, 40), st.sampled_from([0.875, 1.0, 0.9]))
def test_equals_torchvisions_evaluation(height: int, width: int, size: int, crop: float) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    pixels = _picture(height, width)
    official = transforms.Compose(
        [
            transforms.Resize(int(size / crop), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
        ]
    )
    found = centre_square(pixels, size, crop)
    assert found.shape == (size, size, 3)
    assert np.array_equal(found, np.asarray(official(Image.fromarray(pixels))))


def test_imagenets_sizes() -> None:
    assert centre_square(_picture(300, 400), 224, 0.875).shape == (224, 224, 3)
    square = _picture(256, 256)
    assert np.array_equal(centre_square(square, 224, 0.875), square[16:240, 16:240])
    assert np.array_equal(centre_square(square, 256, 1.0), square)


@pytest.mark.parametrize(
    ("size", "bounds", "expected"),
    [
        ((512, 683), (512, 2048), (512, 683)),
        ((256, 341), (512, 2048), (512, 682)),
        ((100, 1000), (512, 2048), (205, 2048)),
        ((480, 640), (800, 1333), (800, 1067)),
        ((1000, 100), (96, 96), (96, 10)),
        ((4000, 1), (10, 20), (20, 1)),
    ],
)
def test_bounded_sizes(size: tuple[int, int], bounds: tuple[int, int], expected: tuple[int, int]) -> None:
    assert bounded_size(*size, *bounds) == expected


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(1, 40))
def test_resizing_takes_the_four_nearest_pixels(height: int, width: int, to_height: int, to_width: int) -> None:
    pixels = _picture(height, width)
    found = resized(pixels, to_height, to_width)
    expected = np.empty((to_height, to_width, 3))
    for row in range(to_height):
        y = max(0.0, (row + 0.5) * height / to_height - 0.5)
        top = min(int(y), height - 1)
        for column in range(to_width):
            x = max(0.0, (column + 0.5) * width / to_width - 0.5)
            left = min(int(x), width - 1)
            below, beside = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            expected[row, column] = (1 - dy) * (
                (1 - dx) * pixels[top, left] + dx * pixels[top, beside].astype(float)
            ) + dy * ((1 - dx) * pixels[below, left] + dx * pixels[below, beside].astype(float))
    assert np.abs(found - expected).max() <= 0.51


def test_resizing_is_opencvs_to_a_grey_value() -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = _picture(37, 53)
    official = cv2.resize(pixels, (71, 50), interpolation=cv2.INTER_LINEAR)
    assert np.abs(resized(pixels, 50, 71).astype(int) - official).max() <= 1


def test_label_maps_are_never_blended() -> None:
    labels = np.array([[0, 5], [255, 7]], dtype=np.uint8)
    assert nearest(labels, 4, 4).tolist() == [[0, 0, 5, 5]] * 2 + [[255, 255, 7, 7]] * 2
    assert nearest(labels, 1, 1).tolist() == [[0]]
    wide = np.arange(10, dtype=np.uint8)[None]
    assert nearest(wide, 1, 4).tolist() == [[0, 2, 5, 7]]


def test_normalising() -> None:
    pixels = _picture(3, 4)
    found = normalised([pixels, pixels], (0.5, 0.25, 0.1), (0.2, 0.4, 0.8))
    assert found.dtype == torch.float32
    assert found.shape == (2, 3, 3, 4)
    assert found[1, 2, 1, 3] == pytest.approx((pixels[1, 3, 2] / 255 - 0.1) / 0.8, abs=1e-6)


def test_padding_is_zero_on_the_right_and_below() -> None:
    batch = [_picture(33, 20, 1), _picture(10, 40, 2)]
    images, sizes = padded_batch(batch, (0.5,) * 3, (0.2,) * 3, multiple=True)
    assert images.shape == (2, 3, 64, 64)
    assert sizes.tolist() == [[33, 20], [10, 40]]
    assert torch.equal(images[0, :, :33, :20], normalised(batch[:1], (0.5,) * 3, (0.2,) * 3)[0])
    assert not images[0, :, 33:].any()
    assert not images[1, :, :, 40:].any()
    assert padded_batch(batch, (0.5,) * 3, (0.2,) * 3, multiple=False)[0].shape == (2, 3, 33, 40)
    assert [up_to(v) for v in (1, 32, 33, 1333)] == [32, 32, 64, 1344]


def test_what_was_prepared_is_kept() -> None:
    read: list[int] = []

    def picture(index: int) -> np.ndarray:
        read.append(index)
        return _picture(4, 4, index)

    found = kept(Pictures(("a", "b"), picture, ""), lambda pixels: pixels[:2], 24)
    assert found(1).shape == (2, 4, 3)
    assert found(1) is found(1)
    assert read == [1]
