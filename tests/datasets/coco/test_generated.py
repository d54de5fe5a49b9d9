"""The generated twin of COCO."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hotcoco")
pytest.importorskip("PIL")

from benchsuite.datasets.coco import generated as synth_fsis
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
