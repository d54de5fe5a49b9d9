"""Importing this module makes CMT known to mmdet3d's MODELS, or to mmengine's where that alone is installed.

``MODELS.build({"type": "BenchsuiteCMT", "architecture": "voxel0100_r50_800x320"})`` is a detector with mmengine's three
modes: ``loss``, ``predict`` and ``tensor``. Its inputs are what mmdet3d's ``Det3DDataPreprocessor`` or a plain collate
hands on: ``points``, a list of clouds (n, 5), and ``imgs`` (B, views, 3, H, W), normalised; ``data_samples`` carry
``lidar2img`` and, to learn from, ``gt_instances_3d``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor

from benchsuite.core import ConfigError
from benchsuite_cmt.architecture import RELEASED
from benchsuite_cmt.boxes import detections
from benchsuite_cmt.compiled_ops import prepare_mmcv
from benchsuite_cmt.config import CMTConfig
from benchsuite_cmt.denoising import noisy_queries
from benchsuite_cmt.losses import denoising_loss, matched_loss
from benchsuite_cmt.model import CMT, Sensors
from benchsuite_cmt.training import noise_rule
from benchsuite_cmt.weights import load_official

__all__ = ["BenchsuiteCMT"]


class BenchsuiteCMT(BaseModel):
    """CMT behind mmengine's interface.

    Parameters
    ----------
    architecture
        Name of a released architecture.
    checkpoint
        Weights in the released layout, or empty.
    data_preprocessor
        See mmengine's BaseModel.
    """

    def __init__(
        self, architecture: str = "voxel0100_r50_800x320", checkpoint: str = "", data_preprocessor: Any = None
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        if architecture not in RELEASED:
            raise ConfigError(f"there is no architecture {architecture!r}: choose {', '.join(sorted(RELEASED))}")
        self.network = CMT(RELEASED[architecture])
        if checkpoint:
            load_official(self.network, Path(checkpoint))
        self.rule = noise_rule(CMTConfig(noise="box", denoising_groups=10))

    def forward(
        self, inputs: Mapping[str, Any], data_samples: Sequence[Any] | None = None, mode: str = "tensor"
    ) -> Any:
        """Return outputs (``tensor``), losses (``loss``), or data samples with ``pred_instances_3d`` (``predict``)."""
        sensors = self._sensors(inputs, data_samples)
        if mode == "loss":
            return self._losses(sensors, data_samples or ())
        outputs = self.network(sensors)
        return outputs if mode == "tensor" else self._predicted(outputs, data_samples or ())

    def _sensors(self, inputs: Mapping[str, Any], data_samples: Sequence[Any] | None) -> Sensors:
        sizes = self.network.sizes
        images = inputs.get("imgs", inputs.get("img")) if sizes.camera else None
        images = torch.stack(list(images)) if isinstance(images, (list, tuple)) else images
        rig = None
        if images is not None:
            stacked = np.stack([np.asarray(sample.metainfo["lidar2img"]) for sample in data_samples or ()])
            rig = torch.from_numpy(stacked).to(images)
        points = [cloud.to(self._device()) for cloud in inputs["points"]] if sizes.lidar else None
        return Sensors(points, images, rig)

    def _device(self) -> torch.device:
        return self.network.references.device

    def _losses(self, sensors: Sensors, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        sizes, boxes, labels = self.network.sizes, [], []
        for sample in data_samples:
            truth = sample.gt_instances_3d
            boxes.append(_gravity_boxes(truth.bboxes_3d).to(self._device()))
            labels.append(truth.labels_3d.to(self._device()))
        seed = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        noisy = noisy_queries(boxes, labels, self.rule, sizes.point_range, sizes.classes, sizes.queries, seed)
        tokens, places = self.network.tokens(sensors)
        if noisy is None:
            found = matched_loss(self.network.decode(sensors, tokens, places), boxes, labels)
            return {"loss_cls": found[0], "loss_bbox": found[1]}
        outputs = self.network.decode(sensors, tokens, places, noisy.references, noisy.blocked)
        of_noise, learned = outputs.split(noisy.references.shape[1])
        names = ("loss_cls", "loss_bbox", "dn_loss_cls", "dn_loss_bbox")
        values = (*matched_loss(learned, boxes, labels), *denoising_loss(of_noise, noisy))
        return dict(zip(names, values, strict=True))

    def _predicted(self, outputs: Any, data_samples: Sequence[Any]) -> list[Any]:
        from mmdet3d.structures import LiDARInstance3DBoxes
        from mmengine.structures import InstanceData

        found = detections(outputs.logits[-1], outputs.codes[-1])
        for sample, one in zip(data_samples, found, strict=True):
            boxes = LiDARInstance3DBoxes(one.boxes, box_dim=9, origin=(0.5, 0.5, 0.5))
            sample.pred_instances_3d = InstanceData(bboxes_3d=boxes, scores_3d=one.scores, labels_3d=one.labels)
        return list(data_samples)


def _gravity_boxes(boxes: Any) -> Tensor:
    """Return (n, 9) with the middle of the box, of mmdet3d's boxes, whose z is that of the bottom."""
    found = torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], dim=1)
    return torch.nan_to_num(found)


if importlib.util.find_spec("mmdet3d") is not None:
    prepare_mmcv()
    from mmdet3d.registry import MODELS
else:
    from mmengine.registry import MODELS

MODELS.register_module(module=BenchsuiteCMT, force=True)
