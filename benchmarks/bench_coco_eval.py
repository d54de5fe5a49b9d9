"""Average precision of 50,000 boxes on 500 images: the suite's engine against pycocotools and faster-coco-eval.

python benchmarks/bench_coco_eval.py
"""

from __future__ import annotations

import contextlib
import copy
import io
import time

import numpy as np

from benchsuite.metrics.instance_segmentation import average_precision

IMAGES, CLASSES = 500, 20


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
    """Return the AP of a library with pycocotools' interface."""
    COCO, COCOeval = module  # noqa: N806
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(truth)
        gt.createIndex()
        evaluation = COCOeval(gt, gt.loadRes(copy.deepcopy(detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def main() -> None:
    """Print CPU seconds and values."""
    truth, detections = make_data()
    runs = {"suite (hotcoco)": lambda: average_precision(truth, detections, range(1, CLASSES + 1), "bbox").ap}
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        runs["pycocotools"] = lambda: evaluate_with((COCO, COCOeval), truth, detections)
    except ImportError:
        print("pycocotools is not installed")
    try:
        import faster_coco_eval as faster

        runs["faster-coco-eval"] = lambda: evaluate_with((faster.COCO, faster.COCOeval_faster), truth, detections)
    except ImportError:
        print("faster-coco-eval is not installed")
    for name, run in runs.items():
        before = time.process_time()
        value = run()
        print(f"{name:18} {time.process_time() - before:6.2f} s of CPU, AP {value:.12f}")


if __name__ == "__main__":
    main()
