"""What a model predicts, checked; its areas and scores; files of predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets import json_values
from benchsuite.datasets.coco.reader import decode_mask, encode_mask
from benchsuite.metrics.segmentation_overlap import Overlap, areas, overlap
from benchsuite.tasks.fewshot_semantic_segmentation.contract import Segmenter
from benchsuite.tasks.fewshot_semantic_segmentation.episodes import Draw
from benchsuite.tasks.fewshot_semantic_segmentation.loading import Loader

__all__ = ["judge", "predict", "read_predictions", "write_predictions"]

Masks = list[NDArray[np.bool_]]

_CHUNK = 8


def predict(model: Segmenter, draws: Sequence[Draw], loader: Loader) -> Masks:
    """Return a model's masks of all episodes.

    Raises
    ------
    InvalidPrediction
        For another number of masks than of episodes, or masks that are not bool of the size asked for.
    """
    found: Masks = []
    for first in range(0, len(draws), _CHUNK):
        episodes = [loader.episode(draw) for draw in draws[first : first + _CHUNK]]
        masks = model.predict(episodes)
        if len(masks) != len(episodes):
            raise InvalidPrediction(f"predict returned {len(masks)} masks for {len(episodes)} episodes")
        for episode, mask in zip(episodes, masks, strict=True):
            if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != episode.output_size:
                kind = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
                raise InvalidPrediction(f"a mask of {kind}: needs bool {episode.output_size}")
        found += masks
    return found


def judge(draws: Sequence[Draw], masks: Sequence[NDArray[np.bool_]], loader: Loader, classes: Sequence[int]) -> Overlap:
    """Return mIoU and FB-IoU of predicted masks over the classes of a fold."""
    found = []
    for draw, mask in zip(draws, masks, strict=True):
        truth = loader.truth(draw)
        found.append(areas(mask, truth.target, truth.ignored))
    return overlap([draw.label for draw in draws], found, classes)


def write_predictions(path: Path, fold: int, draws: Sequence[Draw], masks: Sequence[NDArray[np.bool_]]) -> None:
    """Write the masks of a fold as `read_predictions` takes them."""
    entries = [
        {"fold": fold, "episode": number, "query": draw.query, "segmentation": encode_mask(mask)}
        for number, (draw, mask) in enumerate(zip(draws, masks, strict=True))
    ]
    path.write_text(json.dumps(entries))


def read_predictions(
    path: Path, folds: Collection[int], draws_of: Callable[[int], tuple[Sequence[Draw], Sequence[tuple[int, int]]]]
) -> dict[int, Masks]:
    """Return fold to masks, in the order of the episodes.

    Parameters
    ----------
    path
        A json list of ``fold``, ``episode`` (from 0), ``query`` (the image's name) and ``segmentation``, a COCO
        run-length code of the size that the protocol judges at. Every episode of each fold that the file names, once.
    folds
        That there are.
    draws_of
        Gives the episodes of a fold and the height and width of each one's mask.

    Raises
    ------
    DataError
        One line for json that is broken or no such list, an entry that lacks a field or has another type in it, an
        unknown fold or episode, another query than the episode's, a mask of another size, an episode twice or not at
        all.
    """
    entries, _ = json_values.read_json(path, "a file of predicted masks")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: not a file of predicted masks: needs a list of fold, episode, query and segmentation")
    known: dict[int, tuple[Sequence[Draw], Sequence[tuple[int, int]]]] = {}
    found: dict[int, dict[int, NDArray[np.bool_]]] = {}
    for place, given in enumerate(entries, start=1):
        try:
            entry = json_values.entry(given)
            fold, number = (json_values.field(entry, key, json_values.whole) for key in ("fold", "episode"))
            if fold not in folds:
                raise ValueError(f"there is no fold {fold}")
            if fold not in known:
                known[fold] = draws_of(fold)
            draws, sizes = known[fold]
            mask = _checked(entry, number, draws, sizes)
            if number in found.setdefault(fold, {}):
                raise ValueError(f"episode {number} of fold {fold} is there twice: keep one")
        except (ValueError, DataError) as error:
            raise DataError(f"{path}: entry {place} (from 1): {error}") from None
        found[fold][number] = mask
    for fold, masks in found.items():
        total = len(known[fold][0])
        if len(masks) < total:
            missing = next(number for number in range(total) if number not in masks)
            raise DataError(
                f"{path}: fold {fold} lacks {total - len(masks)} of its {total} episodes, e.g. {missing}: predict all"
            )
    return {fold: [masks[number] for number in sorted(masks)] for fold, masks in sorted(found.items())}


def _checked(
    entry: Mapping[str, Any], number: int, draws: Sequence[Draw], sizes: Sequence[tuple[int, int]]
) -> NDArray[np.bool_]:
    if number >= len(draws):
        raise ValueError(f"there is no episode {number}: they are numbered 0 to {len(draws) - 1}")
    query = json_values.field(entry, "query", json_values.text)
    if query != draws[number].query:
        raise ValueError(
            f"episode {number} asks for {json_values.shown(draws[number].query)}, not {json_values.shown(query)}: draw"
            " the episodes as the protocol says"
        )
    height, width = sizes[number]
    segmentation = json_values.field(entry, "segmentation", _run_lengths)
    return decode_mask(segmentation, height, width)


def _run_lengths(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"is {json_values.shown(value)}: give a run-length code with size and counts")
    return value
