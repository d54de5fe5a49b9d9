"""Mask R-CNN of torchvision as an opponent in few-shot instance segmentation."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torchvision")
pytest.importorskip("hotcoco")

import torch

from benchsuite.core.errors import ConfigError
from benchsuite.datasets.coco import generated as synth_fsis
from benchsuite.harness.context import HarnessContext
from benchsuite.tasks.fewshot_instance_segmentation import task as few
from benchsuite.tasks.fewshot_instance_segmentation.contract import FewShotProtocol
from benchsuite.tasks.fewshot_instance_segmentation.judge import predict
from benchsuite_baselines.fewshot.config import MaskRCNNConfig
from benchsuite_baselines.fewshot.method import MaskRCNN, MaskRCNNSegmenter, build_network, replace_classes


def test_known_classes_keep_their_rows():
    torch.manual_seed(0)
    model = build_network(MaskRCNNConfig(), 3)
    heads = model.roi_heads
    before = [
        heads.box_predictor.cls_score.weight.clone(),
        heads.box_predictor.bbox_pred.weight.clone(),
        heads.mask_predictor.mask_fcn_logits.weight.clone(),
    ]
    replace_classes(model, [3, 1], 2)
    assert torch.equal(heads.box_predictor.cls_score.weight[:3], before[0][[0, 3, 1]])
    assert torch.equal(heads.box_predictor.bbox_pred.weight[4:8], before[1][12:16])
    assert torch.equal(heads.mask_predictor.mask_fcn_logits.weight[1], before[2][3])
    assert heads.box_predictor.cls_score.weight.shape == (5, 256)


def test_the_full_network_is_that_of_torchvision():
    with torch.device("meta"):
        model = build_network(MaskRCNNConfig(network="resnet50"), 90)
    assert sum(p.numel() for p in model.parameters()) == 44_401_393 + 53_120  # batch norms are trained


@pytest.mark.parametrize("setting", ["fsis", "gfsis", "ifsis"])
def test_two_stages_and_valid_detections(tmp_path, setting):
    task = {"fsis": few.FewShot, "gfsis": few.GeneralisedFewShot, "ifsis": few.IncrementalFewShot}[setting]()
    dataset = synth_fsis.load_generated(None, 0)
    base, data, _ = task.few_shot_data(dataset, dataset.train, FewShotProtocol(shots=1), 3)
    (tmp_path / "work").mkdir()
    ctx = HarnessContext(
        seeds={"base": 0, "shots": 0},
        seed_axes=("base", "shots"),
        workdir=tmp_path / "work",
        artifact_folder=tmp_path / "artifacts",
        cache_root=tmp_path / "cache",
        shared_digest="same",
    )
    config = MaskRCNNConfig(base_steps=2, tune_steps=2, batch_size=2, tune_batch_size=2)
    model = MaskRCNN(config).tune(MaskRCNN(config).learn_base(base, ctx), data, ctx)
    results = predict(model, dataset.test.__class__([dataset.test[0]], "one"), data.head_classes)
    assert all(result["category_id"] in data.head_classes for result in results)


def test_empty_masks_are_left_out():
    class Found(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            masks = torch.zeros(2, 1, 8, 8)
            masks[0, 0, 2:4, 2:4] = 0.9
            boxes = torch.tensor([[2.0, 2.0, 4.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
            return [
                {"masks": masks, "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.8, 0.7]), "boxes": boxes}
            ]

    (found,) = MaskRCNNSegmenter(Found(), {1: 9}).predict([np.zeros((8, 8, 3), np.uint8)])
    assert [(d.category_id, d.box) for d in found] == [(9, (2.0, 2.0, 2.0, 2.0))]


@pytest.mark.parametrize(("settings", "message"), [({"lr": 0.0}, "lr and tune_lr"), ({"base_steps": 0}, "at least 1")])
def test_bad_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        MaskRCNNConfig(**settings)
