"""The second call of a method: tune on the shots and predict, where need be in a process that knows nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.core import RunContext
from benchsuite.core.errors import InvalidPrediction
from benchsuite.datasets.coco.reader import ImageSet, Record
from benchsuite.tasks.fewshot_instance_segmentation.contract import FewShotData, FewShotSegmenter, Segmenter, State
from benchsuite.tasks.fewshot_instance_segmentation.judge import predict


@dataclass(frozen=True)
class Tuned:
    """What a tuned model found, the CPU seconds that finding took, and its number of parameters."""

    detections: list[dict[str, Any]]
    seconds: float
    parameters: int | None


def check_state(state: State, maker: str = "learn_base") -> State:
    """Return what learning left, as plain arrays.

    Raises
    ------
    InvalidPrediction
        If it is anything but named arrays of numbers or truth values. ``maker`` is the call that returned it.
    """
    if not isinstance(state, Mapping):
        raise InvalidPrediction(f"{maker} returned {type(state).__name__}: give a mapping from names to arrays")
    for name, array in state.items():
        if not isinstance(name, str) or type(array) is not np.ndarray or array.dtype.kind not in "biuf":
            kind = f"{type(array).__name__} of {array.dtype}" if hasattr(array, "dtype") else type(array).__name__
            raise InvalidPrediction(f"{maker} left {name!r} as {kind}: give numpy arrays of numbers")
    return dict(state)


def tune_and_detect(
    ctx: RunContext, method: FewShotSegmenter, state: State, few: FewShotData, images: ImageSet
) -> Tuned:
    """Tune a fresh method and let it predict on images."""
    model = _tuned(ctx, method, state, few)
    with ctx.phase("predict"):
        before = time.process_time()
        detections = predict(model, images, few.head_classes)
        seconds = time.process_time() - before
    return Tuned(detections, seconds, model.parameters)


def tune_and_keep(ctx: RunContext, method: FewShotSegmenter, state: State, few: FewShotData) -> State:
    """Tune a fresh method and return what tuning it on a further class needs."""
    return check_state(_tuned(ctx, method, state, few).state(), "state")


def _tuned(ctx: RunContext, method: FewShotSegmenter, state: State, few: FewShotData) -> Segmenter:
    with ctx.phase("fit"):
        return method.tune(state, few, ctx)


def tune_apart(ctx: RunContext, method: FewShotSegmenter, state: State, few: FewShotData, images: ImageSet) -> Tuned:
    """Tune and predict in a process that sees neither base images nor answers, nor the folder that they lie in."""
    with _moved_shots(ctx, few) as (shown, folder):
        unlabelled = images.part(_moved(replace(r, annotations=()), folder) for r in images)
        tuned: Tuned = ctx.apart("tuning", tune_and_detect, method, state, shown, unlabelled)
    return tuned


def tune_one_by_one(
    ctx: RunContext, method: FewShotSegmenter, state: State, few: FewShotData, images: ImageSet
) -> Tuned:
    """Add one class after the other, each in a process that sees the shots of that class alone; then detect all."""
    *before, last = arrivals(few)
    for stage in before:
        with _moved_shots(ctx, stage) as (shown, _):
            state = ctx.apart(f"tuning-{stage.novel_classes[0]}", tune_and_keep, method, state, shown)
    return tune_apart(ctx, method, state, last, images)


def arrivals(few: FewShotData) -> list[FewShotData]:
    """Return what each call sees when novel classes come one by one, ascending: earlier ones are known classes then."""
    stages = []
    known = few.base_classes
    for category in few.novel_classes:
        head = tuple(sorted((*known, category)))
        shots = few.shots.with_classes([category])
        stages.append(replace(few, shots=shots, base_classes=known, novel_classes=(category,), head_classes=head))
        known = (*known, category)
    return stages


@contextlib.contextmanager
def _moved_shots(ctx: RunContext, few: FewShotData) -> Iterator[tuple[FewShotData, Path]]:
    """Give the data with the images of the shots in a folder of their own, which is gone afterwards."""
    folder = ctx.workdir / "images"
    for part in ("shots", "test"):  # a training and a test image may have one id
        (folder / part).mkdir(parents=True)
    try:
        shots = few.shots.part(_moved(record, folder / "shots") for record in few.shots)
        yield replace(few, shots=shots), folder / "test"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _moved(record: Record, folder: Path) -> Record:
    """Return a record whose file lies in another folder, as a further link to it where that can be made."""
    source = Path(record.file)
    target = folder / f"{record.image_id}{source.suffix}"
    if not target.exists():
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
    return replace(record, file=str(target))
