"""In the incremental setting a method that wants to keep base images finds no way to."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("hotcoco")
pytest.importorskip("PIL")

PLUGIN = """
from benchsuite.core import MethodSpec, hookimpl

@hookimpl
def benchsuite_methods():
    return [MethodSpec("cheat", "1", ("fsis", "gfsis", "ifsis"), "cheat_method:Cheat")]
"""

# Keeps the base images everywhere it can think of while it sees them, and looks for them in all these places later.
METHOD = """
import gc
import json
from pathlib import Path

import numpy as np

from benchsuite.tasks.fewshot_instance_segmentation.contract import FewShotSegmenter, ImageSet, Segmenter

STASH = []


class Nothing(Segmenter):
    def predict(self, images):
        return [[] for _ in images]


class Cheat(FewShotSegmenter):
    kept = None

    def learn_base(self, data, ctx):
        pixels = np.stack([record.pixels() for record in data.images[:3]])
        self.mine = Cheat.kept = pixels
        STASH.append(pixels)
        np.save(ctx.workdir / "stash.npy", pixels)
        np.save(ctx.artifact("stash.npy"), pixels)
        ctx.cached("stash", {}, lambda folder: np.save(folder / "stash.npy", pixels))
        return {"size": np.array([len(pixels)])}

    def tune(self, state, data, ctx):
        found = []
        if data.base_images is not None:
            found.append("handed over")
        if hasattr(self, "mine") or Cheat.kept is not None or STASH:
            found.append("memory")
        sets = [each for each in gc.get_objects() if isinstance(each, ImageSet)]
        labelled = [a for each in sets for record in each for a in record.annotations]
        if len(labelled) > len(data.shots):
            found.append("annotations in memory")
        if (ctx.cached("stash", {}, lambda folder: None) / "stash.npy").exists():
            found.append("cache")
        if ctx.artifact("stash.npy").exists():
            found.append("artifacts")
        for place in (ctx.workdir, *ctx.workdir.parents[:2]):
            if list(place.rglob("stash.npy")):
                found.append("scratch folder")
        beside = Path(data.shots[0].file).parent
        shown = {record.file for each in sets for record in each}
        if {str(path) for path in beside.iterdir()} - shown:
            found.append("folder of the shots")
        ctx.artifact("found.json").write_text(json.dumps([sorted(set(found)), int(state["size"][0])]))
        return Nothing()
"""


@pytest.mark.parametrize("task", ["fsis", "ifsis"])
def test_a_cheating_plugin_reaches_base_images_only_where_it_may(cli: Any, task: str) -> None:
    cli.install("cheat", PLUGIN)
    (cli.plugins / "cheat_method.py").write_text(METHOD)
    done = cli("run", "--task", task, "--method", "cheat", "--no-reference", "--json", timeout=300)
    assert done.code == 0, done.err
    (path,) = (cli.folder / "runs").rglob("found.json")
    found, state = json.loads(path.read_text())
    assert state == 3
    if task == "ifsis":
        assert found == []
        assert list((cli.folder / "runs").rglob("stash.npy")) == []
    else:  # the same method finds them wherever it looks, where it may see them anyway
        assert {"handed over", "memory", "cache"} <= set(found)
    (result,) = done.json()
    assert result["counts"]["base_state_bytes"] == 8
