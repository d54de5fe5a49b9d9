"""The generated worlds and streets: what they promise, and that they repeat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from driving import world

from benchsuite.datasets.driving_scenes import DATASETS, WORLD
from benchsuite.datasets.driving_scenes.generated import load_world_c, world_extent, write_world
from benchsuite.datasets.driving_scenes.points import read_points
from benchsuite.datasets.driving_scenes.rendering import GROUND, SKY, beams, cast
from benchsuite.datasets.driving_scenes.scenes import Boxes
from benchsuite.datasets.driving_scenes.tables import read_version
from benchsuite.datasets.driving_scenes.writing import quaternion
from benchsuite.datasets.picture_files import read_rgb


def one_box(**changes: object) -> Boxes:
    box = Boxes(
        np.array([[10.0, 0, 1]]),
        np.array([[4.0, 2, 2]]),
        np.array([0.0]),
        np.zeros((1, 2)),
        np.array([0]),
        np.array([-1]),
        np.array([0]),
    )
    return replace(box, **changes)  # type: ignore[arg-type]


def test_rays_end_where_they_should() -> None:
    rays = np.array([[1, 0, 0], [1, 0, -0.1], [0, 0, 1], [-1, 0, -1], [2, 0, 0]], dtype=np.float32)
    hits = cast(np.array([0.0, 0, 1]), rays, one_box())
    assert hits.distances == pytest.approx([8, 8, np.inf, 1, 4])
    assert hits.objects.tolist() == [0, 0, SKY, GROUND, 0]
    assert hits.faces[:2].tolist() == [0, 0]
    turned = cast(np.array([0.0, 0, 1]), rays, one_box(yaws=np.array([np.pi / 2])))
    assert turned.distances[0] == pytest.approx(9)
    assert turned.faces[0] == 1
    from_above = cast(np.array([10.0, 0, 8]), np.array([[0, 0, -1]], dtype=np.float32), one_box())
    assert (from_above.distances[0], from_above.faces[0]) == (pytest.approx(6), 2)


def test_of_two_boxes_the_nearer_is_seen() -> None:
    box = one_box()
    both = Boxes(*(np.concatenate([getattr(box, f)] * 2) for f in box.__dataclass_fields__))
    both.centres[0, 0] = 20
    for boxes, nearer in ((both, 1), (both[np.array([1, 0])], 0)):
        hits = cast(np.array([0.0, 0, 1]), np.array([[1, 0, 0]], dtype=np.float32), boxes)
        assert hits.objects.tolist() == [nearer]


def test_beams_are_numbered_from_below() -> None:
    rays, rings = beams((-22.0, 3.0, 16), 240)
    assert rays.shape == (3840, 3)
    assert np.linalg.norm(rays, axis=1) == pytest.approx(np.ones(3840), abs=1e-6)
    assert (np.diff(rings) >= 0).all()
    assert np.degrees(np.arcsin(rays[[0, -1], 2])) == pytest.approx([-22, 3], abs=1e-4)


def test_quaternions_give_their_rotation_back() -> None:
    rng = np.random.default_rng(0)
    from benchsuite.datasets.driving_scenes.geometry import rotation_of

    for q in [*rng.normal(size=(50, 4)), *np.eye(4), [1, 1, 0, 0], [0, 1, -1, 0]]:
        rotation = rotation_of(q)
        assert rotation_of(quaternion(rotation)) == pytest.approx(rotation, abs=1e-12)


def test_the_world_is_as_described() -> None:
    scenes = world()
    assert scenes.classes == ("car", "truck", "pedestrian", "bicycle")
    assert scenes.channels == ("CAM_FRONT", "CAM_LEFT", "CAM_BACK", "CAM_RIGHT")
    assert scenes.extent == world_extent() == (-16.0, -16.0, -1.8, 16.0, 16.0, 1.0)
    assert not scenes.has_attributes
    assert not scenes.has_velocities
    boxes = [key.boxes for key in scenes.parts["train"]]
    assert {len(one) for one in boxes} <= {2, 3, 4, 5}
    sizes, labels, centres = (np.concatenate([getattr(b, n) for b in boxes]) for n in ("sizes", "labels", "centres"))
    assert (sizes[labels < 2, 0] > 3.7).all()
    assert (sizes[labels >= 2, 0] < 1.2).all()
    assert np.linalg.norm(centres[:, :2], axis=1).min() >= 4
    assert centres[:, 2] == pytest.approx(sizes[:, 2] / 2 - WORLD["lidar_height"])
    points = read_points(scenes.parts["train"][0].lidar[0].path)
    assert 1800 < len(points) < 2800
    assert set(np.unique(points[:, 4])) <= set(range(16))
    assert (points[:, 3] == 0).all()  # intensity says nothing of the class
    assert read_rgb(scenes.parts["train"][0].cameras[2].path).shape == (32, 64, 3)


def test_colour_tells_what_size_does_not() -> None:
    """Warm classes are red where their centre is seen, cool ones blue, whatever their size."""
    right = total = 0
    for key in world().parts["train"]:
        for camera in key.cameras:
            picture = read_rgb(camera.path).astype(int)
            for i in np.flatnonzero(key.boxes.points > 20):
                place = camera.lidar_to_camera @ [*key.boxes.centres[i], 1]
                u, v = (camera.intrinsic @ place[:3])[:2] / place[2]
                if place[2] > 1 and 0 <= round(u) < 64 and 0 <= round(v) < 32:
                    red, _, blue = picture[round(v), round(u)]
                    right += (red > blue) == (key.boxes.labels[i] % 2 == 0)
                    total += 1
    assert total > 40
    assert right > 0.9 * total


@pytest.mark.parametrize(("letter", "tell"), WORLD["tells"].items())
def test_worlds_differ_in_what_height_tells(tmp_path: Path, letter: str, tell: float) -> None:
    write_world(tmp_path, tell, 0, {"train": 40, "val": 1})
    boxes = [key.boxes for key in read_version(tmp_path / "v1.0-generated", "x").parts["train"]]
    heights, labels = (np.concatenate([getattr(b, n) for b in boxes]) for n in ("sizes", "labels"))
    warm, cool = (heights[np.isin(labels, group), 2] for group in ((2,), (3,)))
    assert (cool.min() > warm.max()) == (letter == "b")
    assert cool.mean() / warm.mean() == pytest.approx((1 + tell) / (1 - tell), rel=0.05)


def test_draws_repeat_and_differ(tmp_path: Path) -> None:
    for name, draw in (("one", 1), ("again", 1), ("other", 2)):
        write_world(tmp_path / name, 0.05, draw, {"train": 2, "val": 1})

    def content(name: str) -> dict[str, bytes]:
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        return {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files}

    assert content("one") == content("again")
    one, other = content("one"), content("other")
    assert one.keys() == other.keys()
    assert sum(one[k] != other[k] for k in one if "samples" in k) == len([k for k in one if "samples" in k])


def test_a_draw_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHSUITE_CACHE", str(tmp_path))
    monkeypatch.setitem(WORLD, "scenes", {"train": 2, "val": 1})
    first = load_world_c(None, 5)
    kept = next((tmp_path / "datasets").iterdir())
    before = kept.stat().st_mtime_ns
    again = load_world_c(None, 5)
    assert kept.stat().st_mtime_ns == before
    assert [k.token for k in again.parts["train"]] == [k.token for k in first.parts["train"]]


def test_specs_name_what_the_generator_takes() -> None:
    specs = {spec.name: spec for spec in DATASETS}
    assert {specs[f"cuboids-{letter}"].parameters["tell"] for letter in "abc"} == {0.0, 0.12, 0.05}
    assert all(specs[name].embedded for name in ("cuboids-a", "cuboids-b", "cuboids-c", "cuboid-streets"))
