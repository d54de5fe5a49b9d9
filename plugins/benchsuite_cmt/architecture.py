"""The four released architectures and the small one, as data. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["RELEASED", "SMALL", "Architecture", "architecture"]

Range = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Architecture:
    """Sizes of a `benchsuite_cmt.model.CMT`; the defaults are shared by the released ones.

    Attributes
    ----------
    lidar, camera
        Which modalities there are.
    image_backbone, bev_encoder
        ``vovnet99``, ``resnet50`` or the ``small`` front end; ``sparse`` (voxels, sparse encoder, SECOND, SECONDFPN)
        or the ``small`` front end.
    point_range
        x, y, z in metres, low then high.
    voxel_size, grid
        Of a voxel in metres (x, y, z); voxels of the sparse tensor (z, y, x). The ``small`` encoder's raster has
        ``grid`` cells too.
    max_voxels
        In training, in evaluation.
    image_size
        Height and width that images are resized and cropped to.
    classes
        Number of classes.
    width, heads, layers, feed_forward, queries
        Of the decoder.
    depths, reach
        Points on the ray of an image token, and how far they go, as a share of the range's greatest x.
    branch_width, kernel
        Channels inside a task head, and its kernel over queries.
    dropout
        Of attention.
    frequencies
        ``released``: wavelengths 1 to 3 of the range; ``geometric``: .5 to 8 cycles over the range.
    references
        How the queries' 3-D anchors start: ``uniform`` in the range, or on a ``grid`` of x and y.
    anchor_height
        z in metres of anchors on a grid.
    code
        Which branch of a head learns which number of a box. ``released``: the one named height the logarithm of the
        length, one of dim z. ``plain``: height z, dim the logarithms of the sizes.
    velocity
        Whether the heads learn one; else it is 0.
    head_start
        Weights of a head's last convolution: ``kaiming`` as released, or ``narrow`` (torch's own, uniform within one
        over the root of the inputs), so that boxes start at their queries.
    """

    lidar: bool = True
    camera: bool = True
    image_backbone: Literal["vovnet99", "resnet50", "small"] = "vovnet99"
    bev_encoder: Literal["sparse", "small"] = "sparse"
    point_range: Range = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
    voxel_size: tuple[float, float, float] = (0.075, 0.075, 0.2)
    grid: tuple[int, int, int] = (41, 1440, 1440)
    max_voxels: tuple[int, int] = (120_000, 160_000)
    image_size: tuple[int, int] = (640, 1600)
    classes: int = 10
    width: int = 256
    heads: int = 8
    layers: int = 6
    feed_forward: int = 1024
    queries: int = 900
    depths: int = 64
    reach: float = 1.0
    branch_width: int = 64
    kernel: int = 1
    dropout: float = 0.1
    frequencies: Literal["released", "geometric"] = "released"
    references: Literal["uniform", "grid"] = "uniform"
    anchor_height: float = 0.0
    code: Literal["released", "plain"] = "released"
    velocity: bool = True
    head_start: Literal["kaiming", "narrow"] = "kaiming"


# Names as in the released configurations. The r50 one has 1080 cells of .1 m in its range but a tensor of 1024: what
# lies beyond +48.4 m is lost, and 1024 cells are labelled as the whole range. Kept: checkpoints were trained so.
RELEASED = {
    "voxel0075_vov_1600x640": Architecture(),
    "voxel0100_r50_800x320": Architecture(
        image_backbone="resnet50",
        voxel_size=(0.1, 0.1, 0.2),
        grid=(41, 1024, 1024),
        image_size=(320, 800),
    ),
    "lidar_voxel0075": Architecture(camera=False, kernel=3),
    "camera_vov_1600x640": Architecture(lidar=False),
}
SMALL = Architecture(
    image_backbone="small",
    bev_encoder="small",
    point_range=(-16.0, -16.0, -1.8, 16.0, 16.0, 1.0),
    voxel_size=(1.0, 1.0, 0.7),
    grid=(4, 32, 32),
    image_size=(32, 64),
    classes=4,
    width=64,
    heads=4,
    layers=2,
    feed_forward=128,
    queries=36,
    depths=16,
    reach=1.25,
    branch_width=32,
    dropout=0.0,
    frequencies="geometric",
    references="grid",
    anchor_height=-0.95,
    code="plain",
    head_start="narrow",
)


def architecture(name: str) -> Architecture:
    """Return a released architecture by its name.

    Raises
    ------
    KeyError
        For an unknown name.
    """
    return RELEASED[name]
