"""Carry published results over to the present code where it provably gives the same numbers.

A result counts only for the code whose digest it bears. When code moves, or is rewritten without another outcome, the
rows need not be measured again: either the definitions of the old checkout have the digest of the present ones, or one
seed of the row, measured with both on one machine, gives the same bit for bit. Whatever is neither is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchsuite.core.config import Case, Preset
from benchsuite.core.dataset import DatasetSpec
from benchsuite.core.errors import UserError
from benchsuite.core.method import MethodSpec
from benchsuite.core.registry import Registry
from benchsuite.core.result import Carried, Result
from benchsuite.core.task import TaskSpec
from benchsuite.harness.identity import SourceDigests
from benchsuite.harness.publish import Refused, row_key
from benchsuite.harness.store import StoredResult, write_atomic

_SAME_DEFINITIONS = "the definitions are the same"
_MACHINE = ("python", "platform", "cpu", "libraries")

# Asked of the old checkout, in a process of its own: what digest its code gives to each result, and its specs.
_QUESTION = """
import json, sys
from pathlib import Path
from benchsuite.core.registry import get_registry
from benchsuite.harness.store import find_result_files, read_results
from benchsuite.leaderboard.build import current_digests
registry = get_registry()
stored, problems = read_results(find_result_files(map(Path, sys.argv[1:])))
digest = current_digests(registry)
print(json.dumps({
    "digests": {item.result.fingerprint: digest(item.result) for item in stored},
    "problems": problems,
    "tasks": {s.name: {"load": s.load, "uses": getattr(s, "uses", None)} for s in registry.tasks.values()},
    "datasets": {s.name: s.load for s in registry.datasets.values()},
    "methods": {s.name: {
        "load": s.load,
        "tasks": s.tasks,
        "uses": getattr(s, "uses", None),
        "presets": {n: [dict(p.settings), [[dict(c.where), dict(c.settings)] for c in p.cases]]
                    for n, p in s.presets.items()},
    } for s in registry.methods.values()},
    "owners": registry.owners,
}))
"""


@dataclass
class Account:
    """What was carried over, what counted already, and what was refused."""

    carried: list[Path] = field(default_factory=list)
    current: int = 0
    refused: list[Refused] = field(default_factory=list)


@dataclass(frozen=True)
class _Checkout:
    """The code of another checkout: its own digests, and those of its definitions."""

    own: dict[str, str | None]
    registry: Registry
    definitions: SourceDigests


def carry(
    published: Sequence[StoredResult],
    checkout: Path,
    registry: Registry,
    before: Sequence[StoredResult] = (),
    after: Sequence[StoredResult] = (),
) -> Account:
    """Give results made by the code of ``checkout`` the digest of the present code, in place.

    Parameters
    ----------
    published
        The results to carry over.
    checkout
        Folder of the repository as it was when they were made.
    registry
        The present code.
    before, after
        Results of single seeds measured with the code of ``checkout`` and with the present code: the proofs.

    Raises
    ------
    UserError
        If the checkout does not answer.
    """
    account = Account()
    old = _ask(checkout, [item.path for item in (*published, *before)], registry)
    present = SourceDigests(registry)
    proofs = _proofs(before, after, old)
    for item in published:
        result = item.result
        digest = _digest_of(result, registry, present)
        if result.source_digest == digest:
            account.current += 1
            continue
        if digest is None or old.own.get(result.fingerprint) != result.source_digest:
            account.refused.append(_refused(result, "was not made by the code of that checkout"))
            continue
        if _digest_of(result, old.registry, old.definitions) == digest:
            proof = _SAME_DEFINITIONS
        else:
            found = proofs.get(row_key(result))
            if found is None or found.digest != digest:
                account.refused.append(_refused(result, "the definitions differ and no seed was measured with both"))
                continue
            if found.difference:
                account.refused.append(_refused(result, found.difference))
                continue
            proof = found.text
        _rewrite(item, digest, proof)
        account.carried.append(item.path)
    return account


def _refused(result: Result, reason: str) -> Refused:
    return Refused(f"{result.run.task} {result.label} {result.fingerprint[:16]}", reason)


def _rewrite(item: StoredResult, digest: str, proof: str) -> None:
    entry = Carried(from_digest=item.result.source_digest, proof=proof)
    result = item.result.model_copy(update={"source_digest": digest, "carried": [*item.result.carried, entry]})
    write_atomic(item.path, result.model_dump_json(indent=1).encode() + b"\n")


def _digest_of(result: Result, registry: Registry, digests: SourceDigests) -> str | None:
    run = result.run
    if run.task not in registry.tasks or run.method not in registry.methods:
        return None
    names = [ref.name for ref in run.data.values()]
    return digests.of(registry.tasks[run.task], registry.methods[run.method], names, run.protocol).source


def _ask(checkout: Path, files: Iterable[Path], present: Registry) -> _Checkout:
    roots = [checkout.resolve(), checkout.resolve() / "plugins"]
    path = os.pathsep.join([*map(str, roots), os.environ.get("PYTHONPATH", "")])
    folders = sorted({str(file.resolve().parent) for file in files})
    done = subprocess.run(
        [sys.executable, "-c", _QUESTION, *folders],
        env={**os.environ, "PYTHONPATH": path},
        cwd=roots[0],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"the code in {checkout} does not answer ({last}): give the folder of a checkout")
    answer: dict[str, Any] = json.loads(done.stdout)
    if answer["problems"]:
        raise UserError(f"the code in {checkout} cannot read {answer['problems'][0]}")
    registry = _registry_of(answer, present)
    inside = [root for root in roots if root.is_dir()]
    return _Checkout(answer["digests"], registry, SourceDigests(registry, inside))


def _registry_of(answer: dict[str, Any], present: Registry) -> Registry:
    """Return the specs of the checkout; what its specs cannot say yet is taken from the present ones."""
    registry = Registry(present.manager, owners=answer["owners"])
    for name, spec in answer["tasks"].items():
        known = present.tasks.get(name)
        uses = spec["uses"] if spec["uses"] is not None else (known.uses if known else ())
        registry.tasks[name] = TaskSpec(name, "", spec["load"], uses=tuple(uses))
    for name, load in answer["datasets"].items():
        registry.datasets[name] = DatasetSpec(name, "", "", load)
    for name, spec in answer["methods"].items():
        method = present.methods.get(name)
        uses = spec["uses"] if spec["uses"] is not None else (method.uses if method else ())
        presets = {
            preset: Preset(settings, tuple(Case(where, changes) for where, changes in cases))
            for preset, (settings, cases) in spec["presets"].items()
        }
        tasks = tuple(spec["tasks"])
        registry.methods[name] = MethodSpec(name, "", tasks, spec["load"], presets=presets, uses=tuple(uses))
    return registry


@dataclass(frozen=True)
class _Proof:
    """One seed of a row measured with both codes: the new digest, what to say, or where the two differ."""

    digest: str
    text: str
    difference: str


def _proofs(
    before: Sequence[StoredResult], after: Sequence[StoredResult], old: _Checkout
) -> dict[tuple[str, ...], _Proof]:
    made = {
        item.result.fingerprint: item
        for item in before
        if old.own.get(item.result.fingerprint) == item.result.source_digest
    }
    proofs: dict[tuple[str, ...], _Proof] = {}
    for item in after:
        first = made.get(item.result.fingerprint)
        if first is None:
            continue
        result = item.result
        seeds = ", ".join(f"{axis} {seed}" for axis, seed in result.run.seeds.items())
        difference = difference_of(first, item)
        text = f"{seeds}, measured with both codes on one machine, gives the same bit for bit"
        problem = f"{seeds}, measured with both codes: {difference}" if difference else ""
        key = row_key(result)
        if key not in proofs or problem:  # one seed that differs is enough to refuse
            proofs[key] = _Proof(result.source_digest, text, problem)
    return proofs


def difference_of(one: StoredResult, two: StoredResult) -> str:
    """Return where two results of one run differ in what seeds decide, in one line; empty if nowhere."""
    first, second = one.result, two.result
    if first.status != "ok" or second.status != "ok":
        return f"one is {first.status}, the other {second.status}"
    machines = [{key: result.environment.get(key) for key in _MACHINE} for result in (first, second)]
    if machines[0] != machines[1]:
        return "they come from different machines or libraries"
    quality = [m.name for m in first.definition.metrics if m.kind == "quality"]
    for name in quality:
        if first.scores.get(name) != second.scores.get(name):
            return f"{name} is {first.scores.get(name)} and {second.scores.get(name)}"
    shared = first.counts.keys() & second.counts.keys()  # either code may count more than the other
    if first.parameters != second.parameters or any(first.counts[n] != second.counts[n] for n in shared):
        return "their counts differ"
    kept = [
        {name: a.sha256 for name, a in result.artifacts.items() if Path(name).stem == "predictions"}
        for result in (first, second)
    ]
    if kept[0] != kept[1]:
        return "their predictions differ"
    return ""
