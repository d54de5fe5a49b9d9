"""Tables, info files, points and results of 3-D detection, changed at random: read as they stand, or one line.

With ``--slow`` each property is tried on 2,000 cases.
"""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driving import VERSION, streets, streets_folder
from hypothesis import strategies as st
from support import forall, paths_of

from benchsuite.core.errors import UserError
from benchsuite.datasets.driving_scenes.infos import read_infos
from benchsuite.datasets.driving_scenes.points import read_points
from benchsuite.datasets.driving_scenes.scenes import CLASSES
from benchsuite.datasets.driving_scenes.tables import read_version
from benchsuite.tasks.detection3d.judge import Judge, read_results

CASES = pytest.mark.parametrize("cases", [15, pytest.param(2000, marks=pytest.mark.slow)])
WRONG = (None, True, -1, 0.5, 10**30, float("nan"), float("inf"), "", "x", [], {}, [[1]], "\n", "\ud800", [1] * 3)
TABLES = (
    "calibrated_sensor",
    "ego_pose",
    "sample",
    "sample_data",
    "sample_annotation",
    "instance",
    "scene",
    "category",
)


def one_line(error: UserError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


def harmed(content: Any, where: int, wrong: Any, how: str) -> Any:
    """Return a copy of a JSON value with one part replaced, taken away or doubled."""
    content = copy.deepcopy(content)
    paths = paths_of(content)
    *outer, last = paths[where % len(paths)]
    place = content
    for key in outer:
        place = place[key]
    if how == "drop":
        del place[last]
    elif how == "double" and isinstance(place, list):
        place.append(place[last])
    else:
        place[last] = wrong
    return content


HARM = st.tuples(st.integers(0, 10**6), st.sampled_from(WRONG), st.sampled_from(["replace", "drop", "double"]))


@CASES
def test_tables_are_read_or_refused(tmp_path: Path, cases: int) -> None:
    whole = {name: json.loads((streets_folder() / VERSION / f"{name}.json").read_text()) for name in TABLES}
    folder = tmp_path / VERSION
    shutil.copytree(streets_folder() / VERSION, folder)

    def check(case: tuple[str, tuple[int, Any, str]]) -> None:
        name, (where, wrong, how) = case
        path = folder / f"{name}.json"
        before = path.read_bytes()
        rows = whole[name][:8] if how == "drop" else whole[name]  # a cut table, or one wrong value
        try:
            path.write_text(json.dumps(harmed(rows, where, wrong, how)))
            scenes = read_version(folder, "x")
            for keys in scenes.parts.values():
                for key in keys:
                    assert np.isfinite(key.boxes.centres).all()
                    assert (key.boxes.sizes > 0).all()
        except UserError as error:
            one_line(error)
        finally:
            path.write_bytes(before)

    forall(cases, st.tuples(st.sampled_from(TABLES), HARM), check)


@CASES
def test_info_files_are_read_or_refused(real_data: Path, tmp_path: Path, cases: int) -> None:
    source = real_data / "nuscenes_sample"
    content = json.loads((source / "sample_info.json").read_text())
    for file in source.iterdir():
        if file.suffix in (".jpg", ".bin"):
            (tmp_path / file.name).symlink_to(file)

    def check(case: tuple[int, Any, str]) -> None:
        path = tmp_path / "x_infos.pkl"
        path.write_bytes(pickle.dumps(harmed(content, *case)))
        try:
            (key, *_), *_ = read_infos(path)
            assert np.isfinite(key.boxes.centres).all()
        except UserError as error:
            one_line(error)

    forall(cases, HARM, check)


@CASES
def test_pickles_of_any_bytes_are_refused(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "x_infos.pkl"
    start = pickle.dumps({"metainfo": {"categories": {"car": 0}}, "data_list": []})

    def check(case: tuple[bytes, int]) -> None:
        noise, keep = case
        path.write_bytes(start[:keep] + noise)
        with pytest.raises(UserError) as caught:
            read_infos(path)
        one_line(caught.value)

    forall(cases, st.tuples(st.binary(max_size=40), st.integers(0, len(start))), check)


@CASES
def test_points_are_read_or_refused(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "x.pcd.bin"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            points = read_points(path)
        except UserError as error:
            one_line(error)
        else:
            assert points.shape == (len(content) // 20, 5)
            assert np.isfinite(points).all()

    forall(cases, st.binary(max_size=60), check)


@CASES
def test_results_are_judged_or_refused(tmp_path: Path, cases: int) -> None:
    keys = streets().parts["test"]
    judge = Judge(streets(), keys)
    box = {"translation": [1.0, 2.0, 3.0], "size": [1.0, 2.0, 3.0], "rotation": [1.0, 0.0, 0.0, 0.0]}
    box |= {"velocity": [0.0, 0.0], "detection_name": "car", "detection_score": 0.5, "attribute_name": ""}
    listed = {key.token: [{**box, "sample_token": key.token}] for key in keys}
    content = {"meta": {"use_camera": True}, "results": listed}
    path = tmp_path / "results.json"

    def check(case: tuple[int, Any, str]) -> None:
        path.write_text(json.dumps(harmed(content, *case)))
        try:
            found, _ = read_results(path, keys, CLASSES)
            scores = judge.scores_of(found)
            assert scores.nds is not None
            assert np.isfinite(scores.nds)
        except UserError as error:
            one_line(error)

    forall(cases, HARM, check)
