"""Which episodes there are: the lists of a fold, the official test stream, and the stream to train on.

Test episodes consume NumPy's legacy stream, seeded with 0, call by call as the official loaders do; the sheet of
MSHNet has the hashes. Training episodes follow the official rules with a generator of ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchsuite.core.errors import ConfigError, DataError
from benchsuite.datasets.class_masks.images import ClassMasks, Line, Rule

__all__ = ["Draw", "Lists", "TrainingStream", "digest", "fold_lists", "other_supports", "test_draws"]

PASCAL_DRAWS_PER_CLASS = 750
COCO_TRAINING_EPISODES = 7_500
_VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Draw:
    """One drawn episode.

    Attributes
    ----------
    query, supports
        Names of images.
    label
        The 0-based class that is asked for.
    shown
        The class of the supports, if it is another one.
    """

    query: str
    supports: tuple[str, ...]
    label: int
    shown: int | None = None

    def text(self) -> str:
        """Return ``query|supports|class``, as the published hashes count it."""
        return f"{self.query}|{','.join(self.supports)}|{self.label}"


@dataclass(frozen=True)
class Lists:
    """Lines of a fold with at least K + 1 images a class, and what was left out.

    Attributes
    ----------
    rule
        How episodes are drawn from the lines.
    train, test
        Lines to learn from and to judge on.
    tested
        The classes that are judged: all of the fold that have enough images.
    dropped
        For each class with some images, but too few, why it is left out.
    """

    rule: Rule
    train: tuple[Line, ...]
    test: tuple[Line, ...]
    tested: tuple[int, ...]
    dropped: tuple[tuple[int, str], ...]


def fold_lists(data: ClassMasks, fold: int, shots: int, split: str) -> Lists:
    """Return the lists of a fold.

    For PASCAL-5i no image that shows a class of the fold is learned from. With ``split="val"`` the classes of the next
    fold are judged, on training images (FSS-1000 has its own validation classes); the test classes and images of
    ``fold`` stay out.

    Raises
    ------
    ConfigError
        If the data have no such fold.
    DataError
        If no class to judge on, or to learn from, has K + 1 images.
    """
    count = len(data.folds)
    if not 0 <= fold < count:
        there = "one fold" if count == 1 else f"folds 0 to {count - 1}"
        raise ConfigError(f"{data.name} has {there}, not {fold}: give --seeds fold={count}")
    hidden = {fold} if split == "test" else {fold, (fold + 1) % count}
    if data.validation is not None:
        hidden = {fold} if count > 1 else set()
    train = [line for other, lines in enumerate(data.train) if other not in hidden for line in lines]
    if split == "test":
        test = data.test[fold]
        tested: Collection[int] = data.folds[fold]
    elif data.validation is not None:
        test = data.validation
        tested = {line.label for line in test}
    else:
        test = data.train[(fold + 1) % count]
        tested = data.folds[(fold + 1) % count]
    if data.rule == "pascal":
        shown = {line.image for other in hidden for line in data.train[other]}
        train = [line for line in train if line.image not in shown]
        if split == "val":
            of_the_fold = {line.image for line in data.train[fold]}
            test = tuple(line for line in test if line.image not in of_the_fold)
    elif data.rule == "coco" and split == "val":
        held_out = _share({line.image for lines in data.train for line in lines})
        train = [line for line in train if line.image not in held_out]
        test = tuple(line for line in test if line.image in held_out)
    return _checked(data, fold, shots, tuple(train), tuple(test), sorted(tested))


def _share(images: Collection[str]) -> frozenset[str]:
    """Return a fifth of the images, the same whatever else is there."""
    return frozenset(
        image
        for image in images
        if int.from_bytes(hashlib.sha256(image.encode()).digest()[:4], "big") < _VALIDATION_SHARE * 2**32
    )


def _checked(
    data: ClassMasks, fold: int, shots: int, train: tuple[Line, ...], test: tuple[Line, ...], tested: Sequence[int]
) -> Lists:
    kept, dropped = [], []
    for part, lines in (("training", train), ("test", test)):
        images = by_class(lines)
        few = {label: len(found) for label, found in images.items() if len(found) < shots + 1}
        dropped += [
            (label, f"{data.classes[label]} is left out: {number} {part} images, and {shots + 1} are needed")
            for label, number in sorted(few.items())
        ]
        kept.append(tuple(line for line in lines if line.label not in few))
    if not kept[0] or not kept[1]:
        which = "to learn from" if not kept[0] else "to judge on"
        raise DataError(
            f"{data.name}, fold {fold}: no class {which} has the {shots + 1} images that {shots} shots need:"
            " take another fold, fewer shots or more images"
        )
    absent = [label for label in tested if not any(line.label == label for line in test)]
    dropped += [(label, f"{data.classes[label]} is left out: no test image") for label in absent]
    left = {line.label for line in kept[1]}
    return Lists(data.rule, kept[0], kept[1], tuple(label for label in tested if label in left), tuple(dropped))


def by_class(lines: Iterable[Line]) -> dict[int, list[str]]:
    """Return the images of each class in the order of the list."""
    found: dict[int, list[str]] = {}
    for image, label in lines:
        found.setdefault(label, []).append(image)
    return found


def test_draws(lists: Lists, shots: int, episodes: int) -> list[Draw]:
    """Return the test episodes of a fold: NumPy's legacy stream of seed 0, drawn as the official loader does.

    PASCAL: episode j asks for line j mod n. COCO: a class, then one of its images. FSS-1000: every picture once,
    whatever ``episodes`` says. Supports are drawn one by one from the same class until they are other images than the
    query; they may repeat.
    """
    images = {label: _drawing_order(lists.rule, found) for label, found in by_class(lists.test).items()}
    stream = np.random.RandomState(0)

    def one(population: Sequence[str]) -> str:
        # permutes the whole population: what comes next depends on its length
        return population[int(stream.choice(len(population), 1, replace=False)[0])]

    found = []
    for number in range(len(lists.test) if lists.rule == "fss-1000" else episodes):
        if lists.rule == "coco":
            label = lists.tested[int(stream.choice(len(lists.tested), 1, replace=False)[0])]
            query = one(images[label])
        else:
            query, label = lists.test[number % len(lists.test)]
        found.append(Draw(query, _supports(one, images[label], query, shots), label))
    return found


test_draws.__test__ = False  # type: ignore[attr-defined]  # no test of pytest


def _drawing_order(rule: Rule, images: Sequence[str]) -> list[str]:
    """Return the images of a class as supports are numbered: FSS-1000 counts 1 to 10, others as listed."""
    if rule == "fss-1000":
        return sorted(images, key=lambda image: int(image.rpartition("/")[2]))
    return list(images)


def _supports(
    one: Callable[[Sequence[str]], str], population: Sequence[str], query: str, shots: int
) -> tuple[str, ...]:
    found: list[str] = []
    while len(found) < shots:
        image = one(population)
        if image != query:
            found.append(image)
    return tuple(found)


def _chosen(rng: np.random.Generator) -> Callable[[Sequence[str]], str]:
    """Return what chooses one of a population."""
    return lambda population: population[int(rng.integers(len(population)))]


def other_supports(lists: Lists, draws: Sequence[Draw]) -> list[Draw]:
    """Return the same queries and classes with supports of another class that is tested, none of them the query.

    The control of a method that uses its supports. A generator of its own draws them: the official stream stays as it
    is.

    Raises
    ------
    DataError
        If only one class is tested.
    """
    images = by_class(lists.test)
    rng = np.random.default_rng(0)
    found = []
    for episode in draws:
        others = [c for c in lists.tested if c != episode.label and set(images[c]) - {episode.query}]
        if not others:
            raise DataError("only one class is tested: there are no supports of another class")
        shown = others[int(rng.integers(len(others)))]
        supports = _supports(_chosen(rng), images[shown], episode.query, len(episode.supports))
        found.append(Draw(episode.query, supports, episode.label, shown))
    return found


def digest(draws: Iterable[Draw]) -> str:
    """Return the sha256 (hex) of episodes, one a line, as the sheet gives it."""
    return hashlib.sha256("\n".join(draw.text() for draw in draws).encode()).hexdigest()


class TrainingStream:
    """Training episodes, numbered from 0; the same seed gives the same ones in any order of asking.

    PASCAL: an epoch has 750 draws of each class with replacement, shuffled. COCO: 7,500 episodes an epoch, class
    first, then one of its images. FSS-1000: every training picture once an epoch, shuffled.
    """

    def __init__(self, lists: Lists, shots: int, seed: int) -> None:
        self._lists, self._shots, self._seed = lists, shots, seed
        self._images: Mapping[int, list[str]] = by_class(lists.train)
        self.classes = tuple(sorted(self._images))
        sizes: dict[Rule, int] = {
            "pascal": PASCAL_DRAWS_PER_CLASS * len(self.classes),
            "coco": COCO_TRAINING_EPISODES,
            "fss-1000": len(lists.train),
        }
        self.per_epoch = sizes[lists.rule]
        self._queries = lru_cache(maxsize=2)(self._queries_of)

    def __call__(self, number: int) -> Draw:
        """Return an episode."""
        epoch, place = divmod(number, self.per_epoch)
        query, label = self._queries(epoch)[place]
        rng = np.random.default_rng([self._seed, 1, number])
        return Draw(query, _supports(_chosen(rng), self._images[label], query, self._shots), label)

    def _queries_of(self, epoch: int) -> list[Line]:
        rng = np.random.default_rng([self._seed, 0, epoch])
        if self._lists.rule == "fss-1000":
            return [self._lists.train[i] for i in rng.permutation(self.per_epoch)]
        if self._lists.rule == "pascal":
            labels = np.repeat(self.classes, PASCAL_DRAWS_PER_CLASS)[rng.permutation(self.per_epoch)]
        else:
            labels = rng.choice(self.classes, size=self.per_epoch)
        images = self._images
        one = _chosen(rng)
        return [Line(one(images[int(c)]), int(c)) for c in labels]
