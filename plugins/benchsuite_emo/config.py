"""The settings of all rows of this plugin. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchsuite.core import ConfigError

Schedule = Literal["cosine", "cosine-scaled", "poly"]


@dataclass(frozen=True)
class EMOConfig:
    """Settings; the defaults are those of the embedded preset in classification.

    Attributes
    ----------
    backbone
        A variant of EMO (``emo_nano``, ``emo_1m``, ``emo_2m``, ``emo_5m``, ``emo_6m``) or a model of timm.
    attention, depthwise
        EMO only: whether the last two phases attend, whether blocks that keep their shape have the depth-wise
        convolution.
    window
        EMO only: side of the windows; 0 takes the variant's 7.
    stem_stride
        1 lets the first convolution keep the size, so that all maps are twice as large.
    segmentation_head, detection_head
        Head of the dense tasks.
    head_width
        Channels inside the head; 0 takes the published ones (256, 128 of Semantic FPN, 512 of SSDLite).
    further_levels, stacked
        Of detection heads: levels behind the backbone's (4 and 2 as published with SSDLite and RetinaNet),
        convolutions of RetinaNet's heads (4).
    frozen_stages, norm_eval
        Number of the stages that do not learn, counted from the stem; whether batch norms keep their statistics.
    sync_norms
        Whether batch norms of several GPUs share their statistics (``engine=runner``); alone it changes nothing.
    pretrained, needs_pretrained
        A released checkpoint that the backbone starts from; whether a whole run is refused without it.
    steps, epochs, repeats
        Length of the training: ``steps``, or if these are 0 so many passes over ``repeats`` times the pictures.
    batch_size, lr, min_lr, weight_decay, clip
        AdamW; ``clip`` bounds the norm of gradients, 0 does not.
    decay
        What weight decay leaves out: ``matrices`` all tensors of one dimension and biases, ``no-norms`` what has "norm"
        in its name.
    schedule, warm_up, warm_up_epochs, warm_up_start
        ``cosine`` to ``min_lr``, not shifted by the warm-up, which rises linearly from the rate ``warm_up_start``;
        ``cosine-scaled`` to 0, times a factor that rises from ``warm_up_start`` to 1; ``poly`` to 0 by the power .9,
        without warm-up. The warm-up has so many steps, or if these are 0 passes.
    label_smoothing, drop_path
        Of classification; of EMO (negative: the variant's).
    class_balance
        Of segmentation: a pixel counts by its class's share of the training pixels to the power of minus this; 0 as
        published: all count alike.
    ema
        Decay of the averaged weights, 0 for none. Averages are not corrected for their start.
    augment
        ``none``; ``light``: shifts in classification, mirroring in the dense tasks; ``published``.
    evaluate_every
        Passes between looks under ``selection=test``.
    amp
        Mixed precision on a GPU.
    engine
        ``loop``, or mmengine's ``runner``: the same steps, at the same results.
    workers
        Processes that prepare batches.
    compile
        Whether the deployed form is compiled too.
    """

    backbone: str = "emo_nano"
    attention: bool = True
    depthwise: bool = True
    window: int = 0
    stem_stride: Literal[1, 2] = 2
    segmentation_head: Literal["deeplabv3", "pspnet", "semantic-fpn"] = "semantic-fpn"
    detection_head: Literal["ssdlite", "retinanet"] = "ssdlite"
    head_width: int = 0
    further_levels: int = 4
    stacked: int = 4
    frozen_stages: int = 0
    norm_eval: bool = False
    sync_norms: bool = False
    pretrained: str = ""
    needs_pretrained: bool = False
    steps: int = 300
    epochs: int = 0
    repeats: int = 1
    batch_size: int = 32
    lr: float = 0.004
    min_lr: float = 0.000001
    weight_decay: float = 0.05
    clip: float = 5.0
    decay: Literal["matrices", "no-norms"] = "matrices"
    schedule: Schedule = "cosine"
    warm_up: int = 20
    warm_up_epochs: int = 0
    warm_up_start: float = 0.000001
    label_smoothing: float = 0.1
    drop_path: float = -1.0
    class_balance: float = 0.0
    ema: float = 0.0
    augment: Literal["none", "light", "published"] = "light"
    evaluate_every: int = 1
    amp: bool = False
    engine: Literal["loop", "runner"] = "loop"
    workers: int = 0
    compile: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(f"batch_size is {self.batch_size}: batch norms need at least 2 pictures")
        for name in (
            "window",
            "head_width",
            "further_levels",
            "stacked",
            "frozen_stages",
            "steps",
            "epochs",
            "workers",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative")
        if not (self.steps or self.epochs):
            raise ConfigError("give steps, or epochs with steps=0")
        if self.further_levels > 4:
            raise ConfigError(f"further_levels is {self.further_levels}: there are sizes of anchors for at most 4")
        if min(self.repeats, self.evaluate_every) < 1:
            raise ConfigError("repeats and evaluate_every must be at least 1")
        if min(self.lr, self.warm_up_start) <= 0 or min(self.min_lr, self.weight_decay, self.clip) < 0:
            raise ConfigError("lr and warm_up_start must be positive, min_lr, weight_decay and clip not negative")
        if min(self.warm_up, self.warm_up_epochs) < 0:
            raise ConfigError("warm_up and warm_up_epochs must not be negative")
        if not 0 <= self.class_balance <= 1:
            raise ConfigError(f"class_balance is {self.class_balance}: it must be in [0, 1]")
        if self.sync_norms and (self.norm_eval or self.engine != "runner"):
            raise ConfigError("sync_norms needs engine=runner, and norm_eval=false: what is kept cannot be shared")
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.ema < 1 or self.drop_path >= 1:
            raise ConfigError("label_smoothing and ema must be in [0, 1), drop_path below 1")
