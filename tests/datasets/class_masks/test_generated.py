"""The generated twin: the layout of PASCAL-5i, symmetric scenes, disjoint categories, palettes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from benchsuite.datasets.class_masks import DATASETS, GENERATED, GENERATED_WEAK
from benchsuite.datasets.class_masks import generated as twin
from benchsuite.datasets.class_masks.pascal import FOLDS
from benchsuite.datasets.class_masks.textures import FAMILIES, categories, draw

SMALL = {
    **GENERATED,
    "train_scenes": 24,
    "test_scenes_per_class": 2,
    "pool_train_per_class": 2,
    "pool_test_per_class": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("twin")
    twin.write_dataset(found, SMALL, 0)
    return found


def test_is_read_by_the_reader_of_pascal(folder: Path) -> None:
    data = twin.read_generated(folder, "synth-fss")
    data.verify()
    assert data.rule == "pascal"
    assert data.summary()["images"] == 24 + 40
    assert data.summary()["pictures of the pool"] == 40 * 3
    assert data.picture(data.test[0][0].image).shape == (64, 64, 3)


def test_every_scene_shows_three_classes_and_each_is_visible(folder: Path) -> None:
    data = twin.read_generated(folder, "synth-fss")
    shown: dict[str, list[int]] = {}
    for image, label in data.lines():
        shown.setdefault(image, []).append(label)
        assert data.mask(image, label)[0].mean() >= GENERATED["least_visible"]
    assert {len(labels) for labels in shown.values()} == {3}


def test_a_training_scene_has_classes_of_at_most_two_folds_and_a_test_scene_of_any(folder: Path) -> None:
    data = twin.read_generated(folder, "synth-fss")
    folds: dict[str, set[int]] = {}
    for image, label in data.lines():
        folds.setdefault(image, set()).add(label // 5)
    assert all(len(found) <= 2 for image, found in folds.items() if image.startswith("trn"))
    assert any(len(found) == 3 for image, found in folds.items() if image.startswith("val"))


def test_pool_and_classes_are_disjoint(folder: Path) -> None:
    data = twin.read_generated(folder, "synth-fss")
    assert data.pool is not None
    assert len({*data.classes, *data.pool.names}) == 60
    pictures, labels = data.pool.read(data.pool.train)
    assert pictures.shape == (80, 64, 64, 3)
    assert np.bincount(labels).tolist() == [2] * 40


def test_depth_is_random(folder: Path) -> None:
    """No place in the list of classes says which blob lies on top: each is cut by another about as often."""
    rng = np.random.default_rng(0)
    first = [twin._layout(rng, [0, 1, 2], GENERATED) for _ in range(150)]
    areas = np.array([[(labels == c + 1).sum() for c in range(3)] for labels in first], dtype=float)
    means = areas.mean(axis=0)
    assert means.max() / means.min() < 1.2


def test_another_draw_has_other_scenes_of_the_same_categories(tmp_path: Path, folder: Path) -> None:
    twin.write_dataset(tmp_path, SMALL, 1)
    one, two = (twin.read_generated(place, "synth-fss") for place in (folder, tmp_path))
    assert one.classes == two.classes
    name = one.train[0][0].image
    assert not np.array_equal(one.picture(name), two.picture(name))


def test_weak_palettes_vary_more() -> None:
    category = categories(np.random.default_rng(0), GENERATED["frequencies"])[0]

    def spread(parameters: dict) -> float:
        rng = np.random.default_rng(1)
        means = [draw(rng, category, 32, parameters).mean(axis=(0, 1)) for _ in range(60)]
        return float(np.std([m / m.sum() for m in means], axis=0).mean())

    assert spread(GENERATED_WEAK) > 1.3 * spread(GENERATED)
    names = [spec.name for spec in DATASETS if spec.embedded]
    assert names == ["synth-fss", "synth-fss-weak"]


def test_every_family_at_every_frequency_is_a_category_of_its_own() -> None:
    found = categories(np.random.default_rng(0), GENERATED["frequencies"])
    assert len({category.name for category in found}) == 60
    assert {category.family for category in found} == set(FAMILIES)
    assert len(FOLDS) == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_textures_lie_between_dark_and_bright(family: str) -> None:
    rng = np.random.default_rng(2)
    category = next(c for c in categories(rng, GENERATED["frequencies"]) if c.family == family)
    pixels = draw(rng, category, 48, GENERATED)
    assert pixels.shape == (48, 48, 3)
    assert 0 <= pixels.min() < pixels.max() <= 1
    assert pixels.std(axis=(0, 1)).max() > 0.02
