"""Few-shot instance segmentation in three settings."""

from __future__ import annotations

from benchsuite.core import TaskSpec

_INSTALL = "pip install 'benchsuite[vision]'"
_REQUIRES = ("numpy", "PIL", "hotcoco")
_MODULE = "benchsuite.tasks.fewshot_instance_segmentation.task"


def _fewshot(name: str, title: str, cls: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        title=title,
        load=f"{_MODULE}:{cls}",
        requires=_REQUIRES,
        install=_INSTALL,
        scaffold="benchsuite.tasks.fewshot_instance_segmentation:scaffold.txt",
    )


TASKS = (
    _fewshot("fsis", "Few-shot instance segmentation: novel classes only", "FewShot"),
    _fewshot("gfsis", "Generalised few-shot instance segmentation: base and novel classes", "GeneralisedFewShot"),
    _fewshot(
        "ifsis",
        "Incremental few-shot instance segmentation: novel classes added without base images",
        "IncrementalFewShot",
    ),
)
