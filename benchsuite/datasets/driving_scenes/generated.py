"""Generated streets of cuboids, written in the format of nuScenes and read by its reader.

One family makes two sets. In *cuboid worlds* a car stands among two to five boxes of four classes: large or small, of a
warm or a cool colour. Size is what the LiDAR sees best and colour what only cameras see, so neither sensor alone tells
all classes. How much the height gives away of the colour is the parameter ``tell``. In *cuboid streets* a car drives,
turning, among moving boxes of all ten classes of nuScenes.

Easier than real scenes: flat ground, nothing but boxes, no occlusion by other things, exact calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator

from benchsuite.datasets.driving_scenes import STREETS, STREETS_VERSION, WORLD, WORLD_VERSION
from benchsuite.datasets.driving_scenes.geometry import Floats, about_z, pose
from benchsuite.datasets.driving_scenes.rendering import Look, Reals, beams, cast, measure, pixel_rays, shade
from benchsuite.datasets.driving_scenes.scenes import Boxes, DrivingScenes, Extent
from benchsuite.datasets.driving_scenes.tables import CATEGORIES, LIDAR, RACK, read_version
from benchsuite.datasets.driving_scenes.writing import Tables, quaternion, token_of, write_picture, write_points
from benchsuite.datasets.written_folders import written_once

_VERSION = "v1.0-generated"
_SEED = 2301
_CAMERA_TO_EGO = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # looking along the car's x
_SECOND = 1_000_000  # microseconds
_START = 1_500_000_000 * _SECOND

_CATEGORY_OF = {name: category for category, name in reversed(list(CATEGORIES.items()))}


@dataclass(frozen=True)
class Camera:
    """A camera of a car: where it looks (degrees), where it is (metres), and its horizontal field of view (degrees)."""

    yaw: float
    place: tuple[float, float, float]
    field_of_view: float


@dataclass(frozen=True, eq=False)
class Rig:
    """The sensors of a car.

    Attributes
    ----------
    cameras
        Channel to camera.
    size
        Height and width of pictures.
    ending
        ``jpg`` or ``png``.
    look
        See `Look`.
    lidar_to_ego
        (4, 4).
    elevations, azimuths
        See `beams`.
    farthest, noise, drop
        See `measure`.
    """

    cameras: Mapping[str, Camera]
    size: tuple[int, int]
    ending: str
    look: Look
    lidar_to_ego: Floats
    elevations: tuple[float, float, int]
    azimuths: int
    farthest: float
    noise: float
    drop: float


@dataclass(frozen=True, eq=False)
class Scene:
    """What stands and moves around a car.

    Attributes
    ----------
    name
        Of the scene.
    boxes
        Where objects are at second 0, in the global frame; ``velocities`` are what they keep.
    categories, attributes
        Of each object; no attribute: empty.
    colours
        (n, 3) float32 in [0, 1].
    seconds
        Of the keyframes.
    sweeps
        How many LiDAR sweeps come before each keyframe, a twentieth of a second apart.
    speed, turn
        Of the car: metres and radians a second.
    open_frames
        So many of the last objects let rays through, such as racks.
    """

    name: str
    boxes: Boxes
    categories: Sequence[str]
    attributes: Sequence[str]
    colours: Reals
    seconds: Sequence[float]
    sweeps: int = 0
    speed: float = 0.0
    turn: float = 0.0
    open_frames: int = 0

    def solid_at(self, second: float) -> Boxes:
        """Return where the objects are that rays end at."""
        return self.at(second)[np.arange(len(self.boxes) - self.open_frames)]

    def at(self, second: float) -> Boxes:
        """Return where objects are."""
        along = np.column_stack([self.boxes.velocities, np.zeros(len(self.boxes))])
        boxes = self.boxes
        return Boxes(boxes.centres + along * second, *(getattr(boxes, f) for f in list(boxes.__dataclass_fields__)[1:]))

    def ego(self, second: float) -> Floats:
        """Return the (4, 4) pose of the car; see `ego_pose`."""
        return ego_pose(self.speed, self.turn, second)


def ego_pose(speed: float, turn: float, second: float) -> Floats:
    """Return the (4, 4) pose of a car that drives on a circle, from the origin along x at second 0."""
    angle = turn * second
    if turn:
        return pose(about_z(angle), (np.sin(angle) * speed / turn, (1 - np.cos(angle)) * speed / turn, 0.0))
    return pose(np.eye(3), (speed * second, 0.0, 0.0))


def load_world(tell: float, name: str, root: Path | None, draw: int) -> DrivingScenes:
    """Return a draw of a cuboid world whose heights tell so much of the colour."""
    write = partial(write_world, tell=tell, draw=draw)
    folder = written_once(f"{name}-{WORLD_VERSION}-{draw}", write)
    return read_version(folder / _VERSION, name, world_extent())


def load_world_a(root: Path | None, draw: int) -> DrivingScenes:
    """Return world A: heights say nothing of the colour."""
    return load_world(WORLD["tells"]["a"], "cuboids-a", root, draw)


def load_world_b(root: Path | None, draw: int) -> DrivingScenes:
    """Return world B: heights say what colour it is."""
    return load_world(WORLD["tells"]["b"], "cuboids-b", root, draw)


def load_world_c(root: Path | None, draw: int) -> DrivingScenes:
    """Return world C: heights say something of the colour."""
    return load_world(WORLD["tells"]["c"], "cuboids-c", root, draw)


def load_streets(root: Path | None, draw: int) -> DrivingScenes:
    """Return a draw of cuboid streets."""
    folder = written_once(f"cuboid-streets-{STREETS_VERSION}-{draw}", partial(write_streets, draw=draw))
    return read_version(folder / _VERSION, "cuboid-streets")


def world_extent() -> Extent:
    """Return the extent of cuboid worlds in the LiDAR frame: the ground is as far below 0 as the LiDAR is high."""
    reach, height, high = WORLD["reach"], WORLD["lidar_height"], WORLD["highest"]
    return (-reach, -reach, -height, reach, reach, round(high - height, 6))


def write_world(folder: Path, tell: float, draw: int, counts: Mapping[str, int] | None = None) -> None:
    """Write a cuboid world; ``counts`` are the scenes of each part, else those of `WORLD`."""
    cameras = {
        channel: Camera(yaw, (0.0, 0.0, WORLD["camera_height"]), WORLD["field_of_view"])
        for channel, yaw in WORLD["cameras"].items()
    }
    rig = Rig(
        cameras=cameras,
        size=tuple(WORLD["size"]),
        ending="png",
        look=Look(**{name: WORLD[name] for name in Look.__dataclass_fields__}),
        lidar_to_ego=pose(np.eye(3), (0.0, 0.0, WORLD["lidar_height"])),
        **{name: WORLD[name] for name in ("elevations", "azimuths", "farthest", "noise", "drop")},
    )
    tables = _Writer(folder, rig, list(WORLD["classes"]))
    for number, (part, count) in enumerate((counts or WORLD["scenes"]).items()):
        for place in range(count):
            rng = np.random.default_rng([_SEED, draw, number, place])
            tables.write_scene(part, _world_scene(f"{part}-{place:05d}", tell, rng), rng)
    tables.finish()


def _world_scene(name: str, tell: float, rng: Generator) -> Scene:
    low, high = WORLD["objects"]
    xy = _spread(rng, int(rng.integers(low, high + 1)))
    n = len(xy)
    size_group, hue = rng.integers(2, size=n), rng.integers(2, size=n)
    sizes = np.array(WORLD["sides"])[size_group] * rng.uniform(0.9, 1.1, (n, 3))
    sizes[:, 2] *= 1 + tell * np.where(hue == 0, -1, 1)
    colours = np.array(WORLD["hues"])[hue] + rng.uniform(-1, 1, (n, 3)) * WORLD["hue_spread"]
    boxes = Boxes(
        centres=np.column_stack([xy, sizes[:, 2] / 2]),
        sizes=sizes,
        yaws=rng.uniform(-WORLD["yaw"], WORLD["yaw"], n),
        velocities=np.zeros((n, 2)),
        labels=2 * size_group + hue,
        attributes=np.full(n, -1),
        points=np.zeros(n, dtype=np.int64),
    )
    categories = [_CATEGORY_OF[WORLD["classes"][label]] for label in boxes.labels]
    return Scene(name, boxes, categories, [""] * n, colours.astype(np.float32), [0.0])


def _spread(rng: Generator, count: int) -> Floats:
    """Return (n, 2) places that keep their distance from the car and from each other, ``count`` if they fit."""
    chosen: list[Floats] = []
    for _ in range(WORLD["attempts"]):
        place = rng.uniform(-WORLD["farthest_centre"], WORLD["farthest_centre"], 2)
        near = [np.linalg.norm(place - other) < WORLD["apart"] for other in chosen]
        if np.linalg.norm(place) >= WORLD["nearest_centre"] and not any(near):
            chosen.append(place)
        if len(chosen) == count:
            break
    return np.array(chosen)


def write_streets(folder: Path, draw: int, counts: Mapping[str, int] | None = None) -> None:
    """Write cuboid streets; ``counts`` are the scenes of each part, else those of `STREETS`."""
    cameras = {channel: Camera(yaw, tuple(place), angle) for channel, (yaw, place, angle) in STREETS["cameras"].items()}
    rig = Rig(
        cameras=cameras,
        size=tuple(STREETS["size"]),
        ending="jpg",
        look=Look(**{name: STREETS[name] for name in Look.__dataclass_fields__}),
        lidar_to_ego=pose(about_z(np.radians(STREETS["lidar_yaw"])), STREETS["lidar_place"]),
        **{name: STREETS[name] for name in ("elevations", "azimuths", "farthest", "noise", "drop")},
    )
    tables = _Writer(folder, rig, list(STREETS["kinds"]))
    for number, (part, count) in enumerate((counts or STREETS["scenes"]).items()):
        for place in range(count):
            rng = np.random.default_rng([_SEED + 1, draw, number, place])
            tables.write_scene(part, _street_scene(f"{part}-{place:05d}", rng), rng)
    tables.finish()


@dataclass(frozen=True, eq=False)
class _Thing:
    """Something in a street: what, where at first (2,), its sides (3,), where it looks, and how fast it moves."""

    kind: str
    place: Floats
    size: Floats
    yaw: float
    speed: float = 0.0

    @property
    def reach(self) -> float:
        """Metres from its middle to a corner, seen from above."""
        return float(np.linalg.norm(self.size[:2])) / 2

    @property
    def velocity(self) -> Floats:
        """(2,) metres a second."""
        return self.speed * np.array([np.cos(self.yaw), np.sin(self.yaw)])


def _street_scene(name: str, rng: Generator) -> Scene:
    """Return a scene with some objects of every class, a bicycle rack and a bicycle in it."""
    seconds = [place * STREETS["between"] for place in range(STREETS["keyframes"])]
    speed, turn = rng.uniform(*STREETS["car_speed"]), rng.uniform(*STREETS["car_turn"])
    moments = np.linspace(-0.2, seconds[-1], 12)
    car = np.array([ego_pose(speed, turn, second)[:2, 3] for second in moments])
    things: list[_Thing] = []
    for kind in (kind for kind in STREETS["kinds"] for _ in range(STREETS["of_each"])):
        sides, farthest, speeds = STREETS["kinds"][kind]
        size = np.array(sides) * rng.uniform(0.92, 1.08, 3)
        for _ in range(STREETS["attempts"]):
            distance, angle = rng.uniform(STREETS["nearest_centre"], farthest), rng.uniform(-np.pi, np.pi)
            place = distance * np.array([np.cos(angle), np.sin(angle)])
            moving = rng.uniform(*speeds) if rng.random() < STREETS["moving"] else 0.0
            thing = _Thing(kind, place, size, rng.uniform(-np.pi, np.pi), moving)
            free = all(np.linalg.norm(place - o.place) > thing.reach + o.reach + 1 for o in things)
            from_car = np.linalg.norm(place + moments[:, None] * thing.velocity - car, axis=1)
            if free and from_car.min() > thing.reach + STREETS["clear"]:
                things.append(thing)
                break
    parked = next(place for place, thing in enumerate(things) if thing.kind == "bicycle")
    things[parked] = replace(things[parked], speed=0.0)
    things.append(replace(things[parked], kind=RACK, size=things[parked].size * STREETS["rack"]))
    n, names = len(things), [*STREETS["kinds"], RACK]
    sizes = np.array([thing.size for thing in things])
    boxes = Boxes(
        centres=np.column_stack([np.array([thing.place for thing in things]), sizes[:, 2] / 2]),
        sizes=sizes,
        yaws=np.array([thing.yaw for thing in things]),
        velocities=np.array([thing.velocity for thing in things]),
        labels=np.array([names.index(thing.kind) for thing in things]),
        attributes=np.full(n, -1),
        points=np.zeros(n, dtype=np.int64),
    )
    hues = np.array([STREETS["hues"][kind] for kind in names])
    colours = np.clip(hues[boxes.labels] + rng.uniform(-1, 1, (n, 3)) * STREETS["hue_spread"], 0, 1)
    return Scene(
        name=name,
        boxes=boxes,
        categories=[RACK if thing.kind == RACK else _CATEGORY_OF[thing.kind] for thing in things],
        attributes=[_attribute(thing.kind, thing.speed) for thing in things],
        colours=colours.astype(np.float32),
        seconds=seconds,
        sweeps=STREETS["sweeps"],
        speed=speed,
        turn=turn,
        open_frames=1,
    )


def _attribute(kind: str, speed: float) -> str:
    if kind == "pedestrian":
        return "pedestrian.moving" if speed else "pedestrian.standing"
    if kind in ("bicycle", "motorcycle"):
        return "cycle.with_rider" if speed else "cycle.without_rider"
    if kind in ("traffic_cone", "barrier", RACK):
        return ""
    if speed:
        return "vehicle.moving"
    return "vehicle.stopped" if kind == "bus" else "vehicle.parked"


class _Writer:
    """Writes scenes: renders what sensors see, and adds the records."""

    def __init__(self, root: Path, rig: Rig, classes: Sequence[str]) -> None:
        self.root, self.rig = root, rig
        self.tables = Tables(root, _VERSION)
        self.splits: dict[str, list[str]] = {}
        racks = [RACK] if len(classes) > 4 else []
        self.tables.add_constants([*(_CATEGORY_OF[name] for name in classes), *racks])
        self.rays, self.rings = beams(rig.elevations, rig.azimuths)
        self.pixels = {channel: self._add_camera(channel, camera) for channel, camera in rig.cameras.items()}
        self._add_sensor(LIDAR, "lidar", rig.lidar_to_ego, [])
        for channel in (LIDAR, *rig.cameras):
            (root / "samples" / channel).mkdir(parents=True)
        (root / "sweeps" / LIDAR).mkdir(parents=True)

    def _add_camera(self, channel: str, camera: Camera) -> tuple[Floats, Reals]:
        """Return where a camera is in the car, (4, 4), and the directions of its pixels in the car's frame."""
        height, width = self.rig.size
        focal = width / 2 / np.tan(np.radians(camera.field_of_view) / 2)
        intrinsic = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        to_ego = pose(about_z(np.radians(camera.yaw)) @ _CAMERA_TO_EGO, camera.place)
        self._add_sensor(channel, "camera", to_ego, intrinsic.tolist())
        return to_ego, pixel_rays(intrinsic, self.rig.size, to_ego)

    def _add_sensor(self, channel: str, modality: str, to_ego: Floats, intrinsic: list[list[float]]) -> None:
        sensor = self.tables.add("sensor", channel, channel=channel, modality=modality)
        self.tables.add(
            "calibrated_sensor",
            channel,
            sensor_token=sensor,
            translation=to_ego[:3, 3].tolist(),
            rotation=quaternion(to_ego[:3, :3]),
            camera_intrinsic=intrinsic,
        )

    def write_scene(self, part: str, scene: Scene, rng: Generator) -> None:
        """Render a scene and add its records."""
        tables, name = self.tables, scene.name
        self.splits.setdefault(part, []).append(name)
        places = range(len(scene.seconds))
        samples = [token_of("sample", f"{name}-{k}") for k in places]
        instances = [f"{name}-{i}" for i in range(len(scene.boxes))]
        tables.add(
            "scene",
            name,
            log_token=token_of("log", "log"),
            nbr_samples=len(samples),
            first_sample_token=samples[0],
            last_sample_token=samples[-1],
            name=name,
            description="generated",
        )
        for i, category in zip(instances, scene.categories, strict=True):
            tables.add(
                "instance",
                i,
                category_token=token_of("category", category),
                nbr_annotations=len(samples),
                first_annotation_token=token_of("sample_annotation", f"{i}-0"),
                last_annotation_token=token_of("sample_annotation", f"{i}-{len(samples) - 1}"),
            )
        lidar: list[tuple[float, int | None]] = []
        for k, second in enumerate(scene.seconds):
            lidar += [(second - back / 20, None) for back in range(scene.sweeps, 0, -1)] + [(second, k)]
            tables.add(
                "sample",
                f"{name}-{k}",
                timestamp=_stamp(second),
                scene_token=token_of("scene", name),
                prev=samples[k - 1] if k else "",
                next=samples[k + 1] if k + 1 < len(samples) else "",
            )
            self._cameras(scene, k, rng)
        for place, (second, key) in enumerate(lidar):
            points = self._lidar(scene, second, key, place, len(lidar), rng)
            if key is not None:
                self._annotate(scene, instances, key, points)

    def _cameras(self, scene: Scene, k: int, rng: Generator) -> None:
        for number, (channel, (to_ego, pixels)) in enumerate(self.pixels.items()):
            second = scene.seconds[k] - (0.005 * number if scene.speed else 0.0)  # cameras fire one after the other
            boxes, ego = scene.solid_at(second), scene.ego(second)
            directions = (pixels @ ego[:3, :3].T.astype(np.float32)) if scene.turn else pixels
            hits = cast((ego @ to_ego)[:3, 3], directions, boxes)
            picture = shade(hits, scene.colours, self.rig.size, self.rig.look, rng)
            file = f"samples/{channel}/generated__{channel}__{scene.name}-{_stamp(second)}.{self.rig.ending}"
            write_picture(self.root / file, picture)
            self._add_data(scene, f"{channel}-{k}", channel, second, k, file, ("", ""))

    def _lidar(self, scene: Scene, second: float, key: int | None, place: int, count: int, rng: Generator) -> list[int]:
        """Write a sweep and return how many of its points lie on each object."""
        boxes, ego = scene.solid_at(second), scene.ego(second)
        to_global = ego @ self.rig.lidar_to_ego
        hits = cast(to_global[:3, 3], self.rays @ to_global[:3, :3].T.astype(np.float32), boxes)
        kept, distances = measure(hits, self.rig.farthest, self.rig.noise, self.rig.drop, rng)
        points = np.zeros((len(distances), 5), dtype=np.float32)
        points[:, :3] = self.rays[kept] * distances[:, None]
        points[:, 4] = self.rings[kept]
        folder = "sweeps" if key is None else "samples"
        file = f"{folder}/{LIDAR}/generated__{LIDAR}__{scene.name}-{_stamp(second)}.pcd.bin"
        write_points(self.root / file, points)
        neighbours = [
            token_of("sample_data", f"{scene.name}-{LIDAR}-{other}") if 0 <= other < count else ""
            for other in (place - 1, place + 1)
        ]
        self._add_data(scene, f"{LIDAR}-{place}", LIDAR, second, key, file, (neighbours[0], neighbours[1]))
        return [int((hits.objects[kept] == i).sum()) for i in range(len(scene.boxes))]

    def _add_data(
        self, scene: Scene, name: str, channel: str, second: float, key: int | None, file: str, chain: tuple[str, str]
    ) -> None:
        ego = scene.ego(second)
        pose_token = self.tables.add(
            "ego_pose",
            f"{scene.name}-{name}",
            timestamp=_stamp(second),
            translation=ego[:3, 3].tolist(),
            rotation=quaternion(ego[:3, :3]),
        )
        following = next((k for k, of_key in enumerate(scene.seconds) if of_key >= second), 0)
        height, width = (0, 0) if channel == LIDAR else self.rig.size
        self.tables.add(
            "sample_data",
            f"{scene.name}-{name}",
            sample_token=token_of("sample", f"{scene.name}-{following if key is None else key}"),
            ego_pose_token=pose_token,
            calibrated_sensor_token=token_of("calibrated_sensor", channel),
            timestamp=_stamp(second),
            fileformat="pcd" if channel == LIDAR else self.rig.ending,
            is_key_frame=key is not None,
            height=height,
            width=width,
            filename=file,
            prev=chain[0],
            next=chain[1],
        )

    def _annotate(self, scene: Scene, instances: Sequence[str], k: int, points: Sequence[int]) -> None:
        boxes, last = scene.at(scene.seconds[k]), len(scene.seconds) - 1
        for i, instance in enumerate(instances):
            length, width, height = boxes.sizes[i].tolist()
            attribute = scene.attributes[i]
            self.tables.add(
                "sample_annotation",
                f"{instance}-{k}",
                sample_token=token_of("sample", f"{scene.name}-{k}"),
                instance_token=token_of("instance", instance),
                visibility_token="4",
                attribute_tokens=[token_of("attribute", attribute)] if attribute else [],
                translation=boxes.centres[i].tolist(),
                size=[width, length, height],
                rotation=quaternion(about_z(float(boxes.yaws[i]))),
                prev=token_of("sample_annotation", f"{instance}-{k - 1}") if k else "",
                next=token_of("sample_annotation", f"{instance}-{k + 1}") if k < last else "",
                num_lidar_pts=points[i],
                num_radar_pts=0,
            )

    def finish(self) -> None:
        """Write the tables."""
        self.tables.write({f"generated_{part}": names for part, names in self.splits.items()})


def _stamp(second: float) -> int:
    return _START + round(second * _SECOND)
