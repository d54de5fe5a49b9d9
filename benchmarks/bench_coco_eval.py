"""Average precision of 50,000 boxes on 500 images: the suite's engine against pycocotools and faster-coco-eval.

python benchmarks/bench_coco_eval.py
"""

from __future__ import annotations

import contextlib
import copy
import io
import statistics
import time
from functools import partial

import numpy as np

from benchsuite.metrics.instance_segmentation import average_precision

IMAGES, CLASSES, ROUNDS = 500, 20, 5


def make_data() -> tuple[dict, list]:
    """Return a COCO data set and detections, many of them near a true object."""
    rng = np.random.default_rng(0)
    annotations, detections = [], []
    for image in range(1, IMAGES + 1):
        for _ in range(10):
            box = [*rng.uniform(0, 400, 2), *rng.uniform(10, 200, 2)]
            category = int(rng.integers(1, CLASSES + 1))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": box}
                | {"area": box[2] * box[3], "iscrowd": 0}
            )
            for _ in range(10):
                near = [float(v) for v in np.array(box) + rng.normal(0, 8, 4)]
                detections.append(
                    {"image_id": image, "category_id": category, "score": float(rng.random()), "bbox": near}
                )
    images = [{"id": i, "height": 640, "width": 640} for i in range(1, IMAGES + 1)]
    categories = [{"id": c, "name": str(c)} for c in range(1, CLASSES + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def evaluate_with(module, truth, detections) -> float:
    """Return the AP of a library with pycocotools' interface, which changes what it is given."""
    COCO, COCOeval = module  # noqa: N806
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = truth
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def peers() -> dict:
    """Return the libraries that are installed, imported."""
    found = {}
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        found["pycocotools"] = partial(evaluate_with, (COCO, COCOeval))
    except ImportError:
        print("pycocotools is not installed")
    try:
        import faster_coco_eval as faster

        found["faster-coco-eval"] = partial(evaluate_with, (faster.COCO, faster.COCOeval_faster))
    except ImportError:
        print("faster-coco-eval is not installed")
    return found


def suite(truth, detections) -> float:
    """Return the AP of the suite."""
    return average_precision(truth, detections, range(1, CLASSES + 1), "bbox").ap


def main() -> None:
    """Print the median CPU seconds of a few rounds, in which all take turns, and ratios to pycocotools."""
    data = make_data()
    runs = {"suite (hotcoco)": suite, **peers()}
    seconds, values = {name: [] for name in runs}, {}
    suite(data[0], data[1][:1000])  # imports the engine
    for _ in range(ROUNDS):
        for name, run in runs.items():
            given = copy.deepcopy(data)  # outside of what is measured, like imports
            before = time.process_time()
            values[name] = run(*given)
            seconds[name].append(time.process_time() - before)
    for name, found in seconds.items():
        ratio = ""
        if "pycocotools" in seconds:
            ratio = f", {statistics.median(seconds['pycocotools']) / statistics.median(found):.1f} times pycocotools"
        spread = f"{min(found):.3f} to {max(found):.3f}"
        print(f"{name:18} {statistics.median(found):.3f} s of CPU ({spread}){ratio}, AP {values[name]!r}")


if __name__ == "__main__":
    main()
