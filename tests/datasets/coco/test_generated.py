"""The generated twin of COCO."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hotcoco")
pytest.importorskip("PIL")

from benchsuite.datasets.coco import generated as synth_fsis
from benchsuite.datasets.coco.reader import read_folder
from benchsuite.tasks.fewshot_instance_segmentation.shots import COCO_NOVEL


def test_generated_images_come_through_the_same_reader(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCHSUITE_CACHE", str(tmp_path))
    dataset = synth_fsis.load_generated(None, 3)
    assert (len(dataset.train), len(dataset.test)) == (660, 160)
    assert dataset.novel == synth_fsis.NOVEL
    assert all(any(a["category_id"] in dataset.novel for a in r.annotations) for r in dataset.test)
    assert synth_fsis.load_generated(None, 3).train.digest == dataset.train.digest
    assert synth_fsis.load_generated(None, 4).train.digest != dataset.train.digest
    record = dataset.test[0]
    for instance in record.instances():
        rows, columns = np.nonzero(instance.mask)
        assert instance.box == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_every_novel_class_shares_its_shape_with_a_base_class():
    base = {name.split("-")[0] for i, name in enumerate(synth_fsis.CLASSES, start=1) if i not in synth_fsis.NOVEL}
    assert all(synth_fsis.CLASSES[i - 1].split("-")[0] in base for i in synth_fsis.NOVEL)
    assert len(set(synth_fsis.CLASSES)) == 12
    assert len(COCO_NOVEL) == 20


@pytest.fixture(scope="module")
def small_dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as patch:
        for name, count in {"train_base": 60, "train_novel": 20, "test": 40}.items():
            patch.setitem(synth_fsis.GENERATED_PARAMETERS, name, count)
        synth_fsis.write_dataset(folder, 1)
    return read_folder(folder, "shapes")


class TestScenes:
    """What a generated image shows, on a small draw."""

    def objects(self, small_dataset):
        return [
            (record, i)
            for part in (small_dataset.train, small_dataset.test)
            for record in part
            for i in record.instances()
        ]

    def test_numbers_of_images_are_those_of_the_parameters(self, small_dataset):
        assert (len(small_dataset.train), len(small_dataset.test)) == (80, 40)

    def test_base_images_show_no_novel_object_and_the_others_show_one(self, small_dataset):
        shows = [
            any(i.category_id in small_dataset.novel for i in record.instances()) for record in small_dataset.train
        ]
        assert shows == [False] * 60 + [True] * 20
        assert all(
            any(i.category_id in small_dataset.novel for i in record.instances()) for record in small_dataset.test
        )
        assert {i.category_id for _, i in self.objects(small_dataset)} == set(range(1, 13))

    def test_objects_do_not_share_a_pixel_and_hide_little(self, small_dataset):
        whole = {}
        for part in (small_dataset.train, small_dataset.test):
            for record in part:
                masks = [i.mask for i in record.instances()]
                assert np.sum(masks, axis=0).max(initial=0) <= 1
                for instance in record.instances():
                    name = synth_fsis.CLASSES[instance.category_id - 1].split("-")[0]
                    _, _, width, height = instance.box
                    whole.setdefault(name, []).append(instance.mask.sum() / (width * height))
        for name in ("disk", "square", "cross"):  # how much of its box each shape fills does not vary much
            assert min(whole[name]) > 0.8 * np.median(whole[name])

    def test_sizes_lie_in_the_range_of_radii(self, small_dataset):
        sides = [max(i.box[2:]) for _, i in self.objects(small_dataset)]
        assert min(sides) >= 2 * 8 * 0.7
        assert max(sides) <= 2 * 14 * 1.3
        assert np.ptp(sides) > 10

    def test_squares_are_turned_within_the_range(self, small_dataset):
        fills = []
        for _, instance in self.objects(small_dataset):
            if synth_fsis.CLASSES[instance.category_id - 1].startswith("square"):
                fills.append(instance.mask.sum() / (instance.box[2] * instance.box[3]))
        assert max(fills) > 0.9
        assert min(fills) < 0.8

    def test_texture_tells_the_class_and_colour_does_not(self, small_dataset):
        spreads, hues = {}, {}
        for record, instance in self.objects(small_dataset):
            inside = record.pixels()[instance.mask].astype(float)
            spreads.setdefault(synth_fsis.CLASSES[instance.category_id - 1].split("-")[1], []).append(
                inside.std(axis=0).max()
            )
            hues.setdefault(instance.category_id, []).append(int(inside.mean(axis=0).argmax()))
        assert np.median(spreads["plain"]) < 10
        assert all(np.median(spreads[name]) > 30 for name in ("hstripe", "check", "dots"))
        assert all(set(found) == {0, 1, 2} for found in hues.values())

    def test_the_size_of_images_is_that_of_the_parameters(self, tmp_path, monkeypatch):
        for name, value in {"size": 96, "train_base": 1, "train_novel": 1, "test": 1}.items():
            monkeypatch.setitem(synth_fsis.GENERATED_PARAMETERS, name, value)
        synth_fsis.write_dataset(tmp_path, 0)
        record = read_folder(tmp_path, "shapes").test[0]
        assert record.pixels().shape == (96, 96, 3)
