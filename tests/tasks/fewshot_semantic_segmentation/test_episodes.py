"""Lists of a fold, the official test streams draw by draw, the training stream, and the control's supports."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from benchsuite.core.errors import ConfigError, DataError
from benchsuite.datasets.class_masks.images import ClassMasks, Line
from benchsuite.datasets.class_masks.lists import lines_of, read_pairs, read_pickled
from benchsuite.tasks.fewshot_semantic_segmentation import episodes
from benchsuite.tasks.fewshot_semantic_segmentation.episodes import Lists, TrainingStream, digest, fold_lists


@dataclass(frozen=True, eq=False)
class Names(ClassMasks):
    """Lists without any file."""

    def picture(self, image: str) -> np.ndarray:
        raise AssertionError

    def mask(self, image: str, label: int) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError


def data(images: int = 6, rule: str = "pascal") -> Names:
    """Return four folds of two classes; image ``x`` of fold 0 also shows class 2 of fold 1."""
    folds = ((0, 1), (2, 3), (4, 5), (6, 7))

    def lines(part: str) -> tuple[tuple[Line, ...], ...]:
        found = [[Line(f"{part}{c}_{i}", c) for i in range(images) for c in labels] for labels in folds]
        found[0].append(Line(f"{part}-x", 0))
        found[1].append(Line(f"{part}-x", 2))
        return tuple(map(tuple, found))

    classes = tuple(f"class {c}" for c in range(8))
    return Names("names", rule, classes, folds, lines("t"), lines("v"))  # type: ignore[arg-type]


def lists(rule: str = "pascal", fold: int = 0, shots: int = 1) -> Lists:
    return fold_lists(data(rule=rule), fold, shots, "test")


# --- lists ----------------------------------------------------------------------------------------------


def test_no_image_with_a_class_of_the_fold_is_learned_from() -> None:
    assert "t-x" not in {line.image for line in lists().train}
    assert "t-x" not in {line.image for line in lists(fold=1).train}
    assert "t-x" in {line.image for line in lists(fold=2).train}
    assert {line.label for line in lists(fold=2).train} == {0, 1, 2, 3, 6, 7}


def test_coco_drops_no_image() -> None:
    assert Line("t-x", 2) in lists("coco").train
    assert Line("t-x", 0) not in lists("coco").train


def test_test_lines_are_those_of_the_fold_in_their_order() -> None:
    assert lists(fold=3).test == data().test[3]
    assert lists(fold=3).tested == (6, 7)


@pytest.mark.parametrize("rule", ["pascal", "coco"])
def test_validation_sees_neither_test_classes_nor_test_images(rule: str) -> None:
    found = fold_lists(data(images=30, rule=rule), 0, 1, "val")
    assert {line.label for line in found.test} == {2, 3}
    assert {line.label for line in found.train} == {4, 5, 6, 7}
    assert all(line.image.startswith("t") for line in (*found.train, *found.test))
    assert not {line.image for line in found.train} & {line.image for line in found.test}
    if rule == "pascal":
        assert "t-x" not in {line.image for line in found.test}


def test_own_validation_classes_are_used_where_there_are_some() -> None:
    own = (Line("w1", 8), Line("w2", 8))
    found = fold_lists(
        replace(data(), folds=((0, 1),), train=(data().train[1],), test=(data().test[0],), validation=own,
                rule="fss-1000", classes=(*data().classes, "own")), 0, 1, "val"
    )  # fmt: skip
    assert (found.test, found.tested) == (own, (8,))
    assert found.train == data().train[1]


def test_classes_with_too_few_images_are_left_out_and_named() -> None:
    few = data()
    test = (tuple(line for line in few.test[0] if line.label != 1 or line.image == "v1_0"), *few.test[1:])
    found = fold_lists(replace(few, test=test), 0, 1, "test")
    assert found.tested == (0,)
    assert {line.label for line in found.test} == {0}
    assert found.dropped == ((1, "class 1 is left out: 1 test images, and 2 are needed"),)
    absent = fold_lists(
        replace(few, test=(tuple(li for li in few.test[0] if li.label == 0), *few.test[1:])), 0, 1, "test"
    )
    assert absent.tested == (0,)
    assert absent.dropped == ((1, "class 1 is left out: no test image"),)


def test_a_fold_without_classes_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match=r"fold 0: no class to judge on has the 6 images that 5 shots need") as error:
        fold_lists(replace(data(), test=((Line("a", 0),), *data().test[1:])), 0, 5, "test")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="to learn from"):
        fold_lists(replace(data(), train=(data().train[0], (), (), ())), 0, 1, "test")


def test_an_unknown_fold_is_refused() -> None:
    with pytest.raises(ConfigError, match="folds 0 to 3, not 4"):
        lists(fold=4)
    with pytest.raises(ConfigError, match="one fold, not 1"):
        fold_lists(replace(data(), folds=((0,),)), 1, 1, "test")


# --- the official test streams --------------------------------------------------------------------------


def plain_pascal(lines: list[Line], shots: int, count: int) -> list[str]:
    """Draw as the official loader does, with NumPy's global legacy state."""
    np.random.seed(0)
    found = []
    for number in range(count):
        query, label = lines[number % len(lines)]
        names = [line.image for line in lines if line.label == label]
        supports: list[str] = []
        while len(supports) < shots:
            name = np.random.choice(names, 1, replace=False)[0]
            if name != query:
                supports.append(str(name))
        found.append(f"{query}|{','.join(supports)}|{label}")
    return found


def plain_coco(lines: list[Line], tested: list[int], shots: int, count: int) -> list[str]:
    np.random.seed(0)
    found = []
    for _ in range(count):
        label = int(np.random.choice(tested, 1, replace=False)[0])
        names = [line.image for line in lines if line.label == label]
        query = str(np.random.choice(names, 1, replace=False)[0])
        supports: list[str] = []
        while len(supports) < shots:
            name = np.random.choice(names, 1, replace=False)[0]
            if name != query:
                supports.append(str(name))
        found.append(f"{query}|{','.join(supports)}|{label}")
    return found


@pytest.mark.parametrize("shots", [1, 5])
def test_pascal_stream_equals_the_official_calls(shots: int) -> None:
    found = episodes.test_draws(lists(shots=shots), shots, 60)
    assert [draw.text() for draw in found] == plain_pascal(list(data().test[0]), shots, 60)


@pytest.mark.parametrize("shots", [1, 5])
def test_coco_stream_equals_the_official_calls(shots: int) -> None:
    found = episodes.test_draws(lists("coco", shots=shots), shots, 60)
    assert [draw.text() for draw in found] == plain_coco(list(data().test[0]), [0, 1], shots, 60)


def test_supports_are_other_images_and_may_repeat() -> None:
    found = episodes.test_draws(lists(shots=5), 5, 200)
    assert all(draw.query not in draw.supports for draw in found)
    assert any(len(set(draw.supports)) < 5 for draw in found)


def test_fss_1000_asks_for_every_picture_once() -> None:
    names = [Line(f"bee/{n}", 0) for n in sorted(range(1, 11), key=str)]
    found = episodes.test_draws(Lists("fss-1000", (), tuple(names), (0,), ()), 1, 3)
    assert [draw.query for draw in found] == [line.image for line in names]
    stream = np.random.RandomState(0)
    expected = []
    for line in names:
        while True:
            number = stream.choice(range(1, 11), 1, replace=False)[0]
            if f"bee/{number}" != line.image:
                break
        expected.append(f"bee/{number}")
    assert [draw.supports[0] for draw in found] == expected


@pytest.mark.real_data
@pytest.mark.parametrize(("fold", "shots", "expected"), [(0, 1, "0c1b4ef8e916"), (3, 5, "754f5fe1143c")])
def test_published_pascal_streams(real_data: Path, fold: int, shots: int, expected: str) -> None:
    lines = read_pairs(real_data / f"fss_splits/pascal/val/fold{fold}.txt", range(5 * fold, 5 * fold + 5))
    found = episodes.test_draws(Lists("pascal", (), lines, tuple(range(5 * fold, 5 * fold + 5)), ()), shots, 1000)
    assert digest(found)[:12] == expected


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("fold", "first"),
    [
        (0, "2007_000033|2010_001174|0"),
        (1, "2007_000452|2008_000107|8"),
        (2, "2007_000129|2011_002498|14"),
        (3, "2007_000042|2008_005544|18"),
    ],
)
def test_first_published_episodes(real_data: Path, fold: int, first: str) -> None:
    lines = read_pairs(real_data / f"fss_splits/pascal/val/fold{fold}.txt", range(5 * fold, 5 * fold + 5))
    found = episodes.test_draws(Lists("pascal", (), lines, tuple(range(5 * fold, 5 * fold + 5)), ()), 1, 1)
    assert found[0].text() == first


@pytest.mark.real_data
def test_published_coco_stream(real_data: Path) -> None:
    tested = tuple(range(0, 80, 4))
    lines = lines_of(read_pickled(real_data / "fss_splits/coco/val/fold0.pkl", 80), tested)
    found = episodes.test_draws(Lists("coco", (), lines, tested, ()), 1, 1000)
    assert digest(found)[:12] == "a002fa9792e5"


@pytest.mark.real_data
@pytest.mark.parametrize("fold", range(4))
def test_published_training_lists_hold_no_image_of_the_fold(real_data: Path, fold: int) -> None:
    folds = tuple(tuple(range(5 * f, 5 * f + 5)) for f in range(4))
    parts = [
        tuple(read_pairs(real_data / f"fss_splits/pascal/{part}/fold{f}.txt", folds[f]) for f in range(4))
        for part in ("trn", "val")
    ]
    found = fold_lists(Names("pascal-5i", "pascal", ("?",) * 20, folds, *parts), fold, 1, "test")
    assert not {line.image for line in found.train} & {line.image for line in parts[0][fold]}
    stream = TrainingStream(found, 1, seed=0)
    assert stream.per_epoch == 11_250
    counts = Counter(stream(number).label for number in range(11_250))
    assert set(counts.values()) == {750}
    assert len(counts) == 15


# --- the training stream --------------------------------------------------------------------------------


def test_a_pascal_epoch_has_750_draws_of_each_class() -> None:
    stream = TrainingStream(lists(), 2, seed=5)
    found = [stream(number) for number in range(stream.per_epoch)]
    assert stream.classes == (2, 3, 4, 5, 6, 7)
    assert set(Counter(draw.label for draw in found).values()) == {750}
    assert all(draw.query not in draw.supports for draw in found)
    assert {draw.label for draw in found[:60]} == set(stream.classes)  # shuffled


def test_a_training_episode_is_the_same_in_any_order_of_asking() -> None:
    one, other = TrainingStream(lists(), 2, seed=5), TrainingStream(lists(), 2, seed=5)
    numbers = [9000, 3, 4501, 3]
    assert [one(n) for n in numbers] == [other(n) for n in reversed(numbers)][::-1]
    assert one(3) != TrainingStream(lists(), 2, seed=6)(3) or one(4) != TrainingStream(lists(), 2, seed=6)(4)
    queries = [[one(epoch * one.per_epoch + n).query for n in range(30)] for epoch in (0, 1)]
    assert queries[0] != queries[1]


def test_other_epochs_have_their_rules() -> None:
    coco = TrainingStream(lists("coco"), 1, seed=0)
    assert coco.per_epoch == 7_500
    assert set(Counter(coco(n).label for n in range(600))) == {2, 3, 4, 5, 6, 7}
    names = tuple(Line(f"bee/{n}", 0) for n in range(1, 11))
    fss = TrainingStream(Lists("fss-1000", names, (), (), ()), 1, seed=0)
    assert sorted(fss(n).query for n in range(10)) == sorted(line.image for line in names)


# --- the control ----------------------------------------------------------------------------------------


def test_control_asks_the_same_with_supports_of_another_class() -> None:
    found = lists(shots=5)
    draws = episodes.test_draws(found, 5, 80)
    wrong = episodes.other_supports(found, draws)
    assert [(d.query, d.label) for d in wrong] == [(d.query, d.label) for d in draws]
    images = episodes.by_class(found.test)
    for draw in wrong:
        assert draw.shown is not None
        assert draw.shown != draw.label
        assert len(draw.supports) == 5
        assert set(draw.supports) <= set(images[draw.shown]) - {draw.query}
    assert episodes.test_draws(found, 5, 80) == draws  # the official stream stays as it is


def test_control_needs_two_classes() -> None:
    one = replace(lists(), tested=(0,), test=tuple(line for line in lists().test if line.label == 0))
    with pytest.raises(DataError, match="only one class"):
        episodes.other_supports(one, episodes.test_draws(one, 1, 3))
