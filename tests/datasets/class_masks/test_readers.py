"""Readers of PASCAL-5i and FSS-1000 on small trees, their lists, and files that are not what they should be."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from benchsuite.core.errors import DataError, DatasetNotFound, UserError
from benchsuite.datasets.class_masks.fss1000 import load_fss1000
from benchsuite.datasets.class_masks.lists import read_pairs, read_pickled
from benchsuite.datasets.class_masks.pascal import CLASSES, load_pascal

_spec = importlib.util.spec_from_file_location("class_mask_trees", Path(__file__).parent / "trees.py")
assert _spec is not None
assert _spec.loader is not None
trees = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(trees)


@pytest.fixture
def pascal(tmp_path: Path) -> Path:
    return trees.write_pascal(tmp_path)


@pytest.fixture
def fss(tmp_path: Path) -> Path:
    return trees.write_fss1000(tmp_path)


def test_pascal_is_read_fold_by_fold(pascal: Path) -> None:
    data = load_pascal(pascal, 0)
    assert data.rule == "pascal"
    assert [len(lines) for lines in data.train] == [15] * 4
    assert data.test[1][0] == ("val_05_0", 5)
    assert data.classes[5] == "bus"
    data.verify()
    assert data.summary()["images"] == 120


def test_a_boundary_is_ignored_and_no_foreground(pascal: Path) -> None:
    target, ignored = load_pascal(pascal, 0).mask("trn_07_1", 7)
    assert target.sum() == 14 * 18
    assert ignored.sum() == 18 * 22 - 14 * 18
    assert not (target & ignored).any()
    assert target[10, 11]
    assert not target[9, 11]


def test_pictures_are_read_as_stored(pascal: Path) -> None:
    stored = np.asarray(Image.open(pascal / "VOC2012/JPEGImages/val_00_0.jpg"))
    assert np.array_equal(load_pascal(pascal, 0).picture("val_00_0"), stored)


def test_fss_1000_numbers_its_classes_by_sorted_names(fss: Path) -> None:
    data = load_fss1000(fss, 0)
    assert data.classes == ("ant", "zebra", "bat", "cat", "bee", "dog")
    assert data.folds == ((4, 5),)
    assert [line.image for line in data.test[0][:3]] == ["bee/1", "bee/10", "bee/2"]
    assert data.validation is not None
    assert {line.label for line in data.validation} == {2, 3}
    target, ignored = data.mask("dog/3", 5)
    assert target.sum() == 15 * 19  # grey 127 is background
    assert not ignored.any()
    data.verify()


def _edit(path: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        (root / path).write_text(change((root / path).read_text()))

    return edit


def _remove(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_remove("VOC2012/SegmentationClassAug/val_03_1.png"), "names 1 images without label map"),
        (_remove("VOC2012/JPEGImages/trn_19_2.jpg"), "names 1 images without picture"),
        (_edit("splits/pascal/val/fold0.txt", lambda text: text + "2099_000001__01\n"), "2099_000001"),
        (_edit("splits/pascal/trn/fold2.txt", lambda text: text + "trn_00_0__01\n"), "another fold"),
        (_edit("splits/pascal/trn/fold0.txt", lambda text: text + "trn_00_0__01\n"), "repeats line 1"),
        (_edit("splits/pascal/trn/fold0.txt", lambda text: text.replace("__", "_")), "is no <image>__<label>"),
        (_edit("splits/pascal/trn/fold0.txt", lambda text: ""), "lists nothing"),
    ],
)
def test_broken_lists_are_told_in_one_line(pascal: Path, harm: Callable[[Path], None], words: str) -> None:
    harm(pascal)
    with pytest.raises(DataError, match=words) as error:
        load_pascal(pascal, 0)
    assert "\n" not in str(error.value)


def test_missing_parts_of_pascal_are_told(pascal: Path) -> None:
    with pytest.raises(DatasetNotFound, match="--data-root"):
        load_pascal(None, 0)
    (pascal / "splits/pascal/val/fold3.txt").unlink()
    with pytest.raises(DatasetNotFound, match=r"fold3\.txt"):
        load_pascal(pascal, 0)
    with pytest.raises(DatasetNotFound, match="JPEGImages"):
        load_pascal(pascal / "nowhere", 0)


def _blank(root: Path) -> None:
    Image.fromarray(np.full((40, 50), 255, dtype=np.uint8)).save(root / "VOC2012/SegmentationClassAug/val_00_0.png")


def _colours(root: Path) -> None:
    Image.fromarray(trees.picture(3)).save(root / "VOC2012/SegmentationClassAug/val_00_0.png")


def _another_size(root: Path) -> None:
    trees.write_label_map(root / "VOC2012/SegmentationClassAug/val_00_0.png", 1, height=41)


def _another_class(root: Path) -> None:
    trees.write_label_map(root / "VOC2012/SegmentationClassAug/val_00_0.png", 2)


def _cut(root: Path) -> None:
    path = root / "VOC2012/SegmentationClassAug/val_00_0.png"
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_blank, "ignored. everywhere"),
        (_colours, "stores pixels as RGB"),
        (_another_size, "its mask is 50 x 41 pixels, its picture 50 x 40"),
        (_another_class, "holds no pixel of the value 1, only 0, 2, 255"),
        (_cut, "not a readable image"),
    ],
)
def test_broken_label_maps_are_told_in_one_line(pascal: Path, harm: Callable[[Path], None], words: str) -> None:
    harm(pascal)
    with pytest.raises(DataError, match=words) as error:
        load_pascal(pascal, 0).verify()
    assert "val_00_0" in str(error.value)
    assert "\n" not in str(error.value)


def test_broken_fss_1000_is_told(fss: Path) -> None:
    (fss / "FSS-1000/bee/7.png").unlink()
    with pytest.raises(DataError, match=r"'bee' lacks 7\.png"):
        load_fss1000(fss, 0)


def test_a_category_in_two_lists_is_told(fss: Path) -> None:
    (fss / "splits/fss/val.txt").write_text("ant\ncat")
    with pytest.raises(DataError, match="'ant', which another list has too"):
        load_fss1000(fss, 0)
    (fss / "splits/fss/val.txt").write_text("../trn\ncat")
    with pytest.raises(DataError, match="no name of a folder"):
        load_fss1000(fss, 0)


def test_a_mask_without_foreground_is_told(fss: Path) -> None:
    Image.fromarray(np.full((36, 36), 100, dtype=np.uint8)).save(fss / "FSS-1000/bat/1.png")
    with pytest.raises(DataError, match="no foreground"):
        load_fss1000(fss, 0).mask("bat/1", 2)


class _Harmful:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({0: [np.int64(3)]}), "it names numpy"),
        (pickle.dumps({0: ("a.jpg",)}), "needs a list of image names"),
        (pickle.dumps({"0": ["a.jpg"]}), "is no class id"),
        (pickle.dumps({90: ["a.jpg"]}), "is no class id"),
        (pickle.dumps({True: ["a.jpg"]}), "is no class id"),
        (pickle.dumps({0: ["a.jpg", "a.jpg"]}), "twice"),
        (pickle.dumps([["a.jpg"]]), "needs a dict"),
        (pickle.dumps({0: ["a.jpg"]})[:-3], "not a list of plain"),
        (pickle.dumps({0: ["a.jpg"]}) + b"x", "goes on after its end"),
        (b"", "not a list of plain"),
    ],
    ids=range(10),
)
def test_only_plain_pickles_are_read(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "fold0.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        read_pickled(path, 80)
    assert "\n" not in str(error.value)


def test_code_in_a_pickle_is_never_called(tmp_path: Path) -> None:
    path, mark = tmp_path / "fold0.pkl", tmp_path / "called"
    path.write_bytes(pickle.dumps({0: [_Harmful(mark)]}))
    with pytest.raises(DataError, match="it names pathlib") as error:
        read_pickled(path, 80)
    assert "\n" not in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_all_protocols_are_read(tmp_path: Path, protocol: int) -> None:
    content = {0: ["val2014/a.jpg", "val2014/b.jpg"], 1: []}
    (tmp_path / "fold0.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    assert read_pickled(tmp_path / "fold0.pkl", 80) == {0: ("val2014/a.jpg", "val2014/b.jpg"), 1: ()}


PAIRS = {"trn": [(2286, 2279), (3425, 3309), (5882, 5029), (2086, 1986)]}
PAIRS["val"] = [(346, 345), (451, 433), (725, 587), (346, 326)]


@pytest.mark.real_data
def test_published_pascal_lists_have_their_counts(real_data: Path) -> None:
    for part, expected in PAIRS.items():
        for fold, (lines, images) in enumerate(expected):
            found = read_pairs(real_data / f"fss_splits/pascal/{part}/fold{fold}.txt", range(5 * fold, 5 * fold + 5))
            assert (len(found), len({line.image for line in found})) == (lines, images)


@pytest.mark.real_data
def test_published_coco_lists_have_their_counts(real_data: Path) -> None:
    expected = [(35783, 26052), (17912, 15305), (14563, 13138), (14315, 12640)]
    for fold, (pairs, images) in enumerate(expected):
        found = read_pickled(real_data / f"fss_splits/coco/val/fold{fold}.pkl", 80)
        assert sum(map(len, found.values())) == pairs
        assert len({image for listed in found.values() for image in listed}) == images
        assert {label for label, listed in found.items() if listed} <= set(range(fold, 80, 4))


def test_every_error_is_one_of_the_user() -> None:
    assert issubclass(DataError, UserError)
    assert len(CLASSES) == 20
