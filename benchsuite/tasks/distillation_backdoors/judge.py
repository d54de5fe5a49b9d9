"""The judge of attacks: predicted classes to scores and counts, the table of classes, the file of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Outcome
from benchsuite.metrics import backdoor, classification
from benchsuite.tasks.distillation_backdoors.contract import DistilledSet, Integers


def judge(predictions: Mapping[str, Integers], labels: Integers, target: int) -> Outcome:
    """Return the quality metrics of predicted classes, one (N,) array a situation."""

    def success(name: str) -> float | None:
        return backdoor.attack_success_rate_nontarget(predictions[name], labels, target)

    scores: dict[str, float | None] = {
        "cta": classification.accuracy(predictions["clean"], labels),
        "asr": backdoor.attack_success_rate(predictions["triggered"], target),
        "asr_nontarget": success("triggered"),
        "asr_valid_pixels": success("triggered_valid_pixels"),
        "control_asr_start": success("control_start"),
        "control_asr": success("control"),
    }
    undefined = {name: "every test image is of the target class" for name, value in scores.items() if value is None}
    counts = {"test_images": len(labels), "test_images_of_target_class": int((labels == target).sum())}
    return Outcome(scores=scores, undefined=undefined, counts=counts)


def patch_readout(distilled: DistilledSet, mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return, for each class, the mean of the synthetic pixels under the patch: where a trigger was implanted."""
    under = distilled.images[:, :, mask].mean(axis=(1, 2))
    return [
        {"class": int(c), "mean_under_patch": float(under[distilled.labels == c].mean())}
        for c in np.unique(distilled.labels)
    ]


def write_predictions(path: Path, predictions: Mapping[str, Integers]) -> None:
    """Write a CSV: the predicted class of every test image, one column a situation."""
    table = np.column_stack([np.arange(len(predictions["clean"])), *predictions.values()])
    np.savetxt(path, table, fmt="%d", delimiter=",", header=",".join(["image", *predictions]), comments="")
