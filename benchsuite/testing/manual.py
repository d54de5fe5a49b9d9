"""The manual for authors of methods, tasks and data sets, made from the docstrings that it is about.

``python -m benchsuite.testing.manual`` prints ``docs/extending.md``; a test compares the two.
"""

from __future__ import annotations

import inspect
from importlib import resources
from typing import Any

from benchsuite.core.claim import Claim, parse_reported
from benchsuite.core.config import Case, Preset
from benchsuite.core.context import RunContext
from benchsuite.core.dataset import DatasetSpec
from benchsuite.core.method import Method, MethodSpec, Paper, Resources
from benchsuite.core.metric import Metric
from benchsuite.core.task import Constraint, Outcome, Presentation, Ranking, Ratio, Task, TaskSpec

_CHAPTERS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("Methods", (MethodSpec, Preset, Case, Paper, Resources, Method)),
    ("Tasks", (TaskSpec, Task, Metric, Ranking, Constraint, Outcome, Presentation, Ratio)),
    ("Data sets", (DatasetSpec,)),
    ("What a run offers: `ctx`", (RunContext,)),
    ("Claims and reported numbers", (Claim, parse_reported)),
)
_WITH_METHODS = (Method, Task, RunContext)


def manual() -> str:
    """Return the manual as Markdown."""
    lines = [resources.files("benchsuite.testing").joinpath("manual.txt").read_text()]
    for title, subjects in _CHAPTERS:
        lines += [f"## {title}", ""]
        for subject in subjects:
            lines += [f"### {subject.__name__}", "", *_block(subject)]
            if subject in _WITH_METHODS:
                lines += [line for name, member in _members(subject) for line in (f"#### {name}", "", *_block(member))]
    return "\n".join(lines).rstrip() + "\n"


def _block(subject: Any) -> list[str]:
    return ["```text", inspect.getdoc(subject) or "", "```", ""]


def _members(subject: type) -> list[tuple[str, Any]]:
    found = []
    for name, member in vars(subject).items():
        function = getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function) and function.__doc__:
            arguments = ", ".join(p for p in inspect.signature(function).parameters if p not in ("self", "cls"))
            found.append((f"{name}({arguments})", function))
    return found


if __name__ == "__main__":
    print(manual(), end="")
