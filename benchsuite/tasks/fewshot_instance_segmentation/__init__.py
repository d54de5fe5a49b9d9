"""Few-shot instance segmentation in three settings."""

from __future__ import annotations

from benchsuite.core import Presentation, Publication, TaskSpec

_INSTALL = "pip install 'benchsuite[vision]'"
_REQUIRES = ("numpy", "PIL", "hotcoco")
_MODULE = "benchsuite.tasks.fewshot_instance_segmentation.task"


def _names(prefixes: tuple[str, ...]) -> dict[str, str]:
    """Return the metrics' names as the field writes them: nAP, bAP50, AP75 (box), nAP small."""
    return {
        f"{prefix}ap{which}{suffix}": f"{prefix}AP{which.replace('_', ' ')}{' (box)' if suffix else ''}"
        for prefix in prefixes
        for which in ("", "50", "75", "_small", "_medium", "_large")
        for suffix in ("", "_bbox")
    }


def _fewshot(name: str, title: str, cls: str, headline: tuple[str, ...], seeds: dict[str, int]) -> TaskSpec:
    return TaskSpec(
        name=name,
        title=title,
        load=f"{_MODULE}:{cls}",
        requires=_REQUIRES,
        install=_INSTALL,
        scaffold="benchsuite.tasks.fewshot_instance_segmentation:scaffold.txt",
        shown=Presentation(headline=headline, names=_names(("n",) if name == "fsis" else ("n", "b", ""))),
        published=Publication(seeds=seeds),
    )


TASKS = (
    _fewshot(
        "fsis",
        "Few-shot instance segmentation: novel classes only",
        "FewShot",
        ("nap", "nap50", "nap_bbox"),
        {"base": 13, "shots": 1},
    ),
    _fewshot(
        "gfsis",
        "Generalised few-shot instance segmentation: base and novel classes",
        "GeneralisedFewShot",
        ("nap", "bap", "ap"),
        {"base": 8, "shots": 1},
    ),
    _fewshot(
        "ifsis",
        "Incremental few-shot instance segmentation: novel classes added without base images",
        "IncrementalFewShot",
        ("nap", "bap", "ap"),
        {"base": 20, "shots": 1},
    ),
)
