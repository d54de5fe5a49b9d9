"""The second call of a method: tune on the shots and predict, where need be in a process that knows nothing else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.core import RunContext
from benchsuite.core.errors import InvalidPrediction
from benchsuite.datasets.coco.reader import ImageSet, Record
from benchsuite.tasks.fewshot_instance_segmentation.contract import FewShotData, FewShotSegmenter, State
from benchsuite.tasks.fewshot_instance_segmentation.judge import predict


@dataclass(frozen=True)
class Tuned:
    """What a tuned model found, the CPU seconds that finding took, and its number of parameters."""

    detections: list[dict[str, Any]]
    seconds: float
    parameters: int | None


def check_state(state: State) -> State:
    """Return what learning the base classes left, as plain arrays.

    Raises
    ------
    InvalidPrediction
        If it is anything but named arrays of numbers or truth values.
    """
    if not isinstance(state, Mapping):
        raise InvalidPrediction(f"learn_base returned {type(state).__name__}: give a mapping from names to arrays")
    for name, array in state.items():
        if not isinstance(name, str) or type(array) is not np.ndarray or array.dtype.kind not in "biuf":
            kind = f"{type(array).__name__} of {array.dtype}" if hasattr(array, "dtype") else type(array).__name__
            raise InvalidPrediction(f"learn_base left {name!r} as {kind}: give numpy arrays of numbers")
    return dict(state)


def tune_and_detect(
    ctx: RunContext, method: FewShotSegmenter, state: State, few: FewShotData, images: ImageSet
) -> Tuned:
    """Tune a fresh method and let it predict on images."""
    with ctx.phase("fit"):
        model = method.tune(state, few, ctx)
    with ctx.phase("predict"):
        before = time.process_time()
        detections = predict(model, images, few.head_classes)
        seconds = time.process_time() - before
    return Tuned(detections, seconds, model.parameters)


def tune_apart(ctx: RunContext, method: FewShotSegmenter, state: State, few: FewShotData, images: ImageSet) -> Tuned:
    """Do the same in a process that sees neither base images nor answers, nor the folder that they lie in."""
    folder = ctx.workdir / "images"
    for part in ("shots", "test"):  # a training and a test image may have one id
        (folder / part).mkdir(parents=True)
    shots = ImageSet([_moved(record, folder / "shots") for record in few.shots], few.shots.source)
    unlabelled = ImageSet([_moved(replace(r, annotations=()), folder / "test") for r in images], images.source)
    tuned: Tuned = ctx.apart("tuning", tune_and_detect, method, state, replace(few, shots=shots), unlabelled)
    return tuned


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
