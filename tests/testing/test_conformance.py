"""Every conformance check passes on a good plugin and fails on one that is broken in just that way."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchsuite.core import MethodSpec
from benchsuite.core.registry import get_registry
from benchsuite.testing import checks

HAS_TORCH = importlib.util.find_spec("torch") is not None
HEAD = """
import dataclasses, sys
import numpy as np
from skeletons.checked import Guesser
"""
GOOD = """
class M(Guesser):
    def guess(self, x, labels, ctx):
        rng = np.random.default_rng(ctx.seed_for("run", "m"))
        noise = np.zeros(len(x))
        for _ in ctx.resumable("noise", 5, {"rng": rng, "noise": noise}):
            noise[:] = rng.normal(size=len(x))
        return x[:, 0] + noise
"""
TORCH = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x):
        return self.linear(x)

class M(M):
    def forward_examples(self):
        yield Net(), (torch.randn(3, 2),)
"""
REQUIRES = {"requires": "('torch',)"}
PAPER = {"presets": "{'embedded': Preset(), 'paper': Preset()}"}
SETTINGS = """
@dataclasses.dataclass(frozen=True)
class Settings:
    size: int = 1

"""

# check -> (source of method.py, changes of the registration, line put before the registration)
BROKEN: dict[str, tuple[str, dict[str, str], str]] = {
    "registers lightly": (HEAD + GOOD, {}, "import numpy"),
    "claims and numbers": (HEAD + GOOD, {"claims": "'nowhere:claims.toml'"}, ""),
    "constructor only stores": (
        HEAD + GOOD + "    def __init__(self, config):\n        super().__init__(config)\n        self.x = 1\n",
        {},
        "",
    ),
    "unfitted method pickles": (
        HEAD + GOOD + "    def __reduce__(self):\n        raise TypeError('no')\n",
        {},
        "",
    ),
    "runs": (HEAD + GOOD.replace("return x", "raise RuntimeError('boom')\n        return x"), {}, ""),
    "valid predictions": (HEAD + GOOD.replace("return x[:, 0]", "return x[:3, 0]").replace("+ noise", ""), {}, ""),
    "same seed, same scores": (
        HEAD + "import time\n" + GOOD.replace('ctx.seed_for("run", "m")', "time.time_ns() % 999983"),
        {},
        "",
    ),
    "other seed, other training": (HEAD + GOOD.replace('ctx.seed_for("run", "m")', "7"), {}, ""),
    "goes on after a kill": (HEAD + GOOD.replace('"rng": rng, ', ""), {}, ""),
    "hidden answers": (
        HEAD + GOOD.replace("return x[:, 0]", "return sys._getframe(1).f_locals['points'].y"),
        {},
        "",
    ),
    "data kept": (HEAD + GOOD.replace("return x[:, 0]", "labels[:] = 0\n        return x[:, 0]"), {}, ""),
    "forward on fake CUDA": (
        HEAD + GOOD + TORCH.replace("return self.linear(x)", "return self.linear(x) + torch.zeros(3, 1, device='cpu')"),
        REQUIRES,
        "",
    ),
    "result round trip": (
        HEAD + GOOD.replace("return x", "(ctx.workdir.parent / 'truncate-me').touch()\n        return x"),
        {},
        "",
    ),
    "paper preset": (
        HEAD + SETTINGS + GOOD.replace("class M(Guesser):", "class M(Guesser):\n    Config = Settings\n").replace(
            "return x", "assert self.config.size == 1, 'too large'\n        return x"
        ),
        {"presets": "{'embedded': Preset(), 'paper': Preset({'size': 9})}"},
        "",
    ),
}  # fmt: skip


SPOILER = """
from benchsuite.core import hookimpl

@hookimpl
def benchsuite_run_finished(result):
    from pathlib import Path
    import glob, tempfile
    for mark in glob.glob(tempfile.gettempdir() + "/benchsuite-check-*/**/truncate-me", recursive=True):
        file = Path(mark).parent / "result.json"
        text = file.read_text()
        file.write_text(text.replace('"seeds": {\\n   "run": 0', '"seeds": {\\n   "run": 1'))
"""


def install(cli: Any, name: str, source: str, changes: dict[str, str], line: str) -> None:
    more = "".join(f", {key}={value}" for key, value in changes.items())
    package = name.replace("-", "_")
    cli.install(
        package,
        f"{line}\nfrom benchsuite.core import MethodSpec, Preset\n"
        "def benchsuite_methods():\n"
        f"    return [MethodSpec('{name}', '1', ('toy-checked',), '{package}_method:M'{more})]\n",
    )
    (cli.plugins / f"{package}_method.py").write_text(source)


def named(check: str) -> str:
    return "breaks-" + check.replace(", ", "-").replace(" ", "-").lower()


Verdicts = dict[str, dict[str, tuple[str, str]]]


@pytest.fixture(scope="module")
def verdicts(shared_cli: Any) -> Verdicts:
    """What one command finds out about all of them: method -> check -> verdict and detail."""
    subjects = {"good": (HEAD + GOOD, PAPER, ""), "good-torch": (HEAD + GOOD, REQUIRES, "")}
    subjects["good-module"] = (HEAD + GOOD + TORCH, REQUIRES, "")
    for check, (source, changes, line) in BROKEN.items():
        subjects[named(check)] = (source, PAPER | changes, line)
    if not HAS_TORCH:
        for name in ("good-torch", "good-module", named("forward on fake CUDA")):
            del subjects[name]
    for name, subject in subjects.items():
        install(shared_cli, name, *subject)
    shared_cli.install("spoiler", SPOILER)
    done = shared_cli("plugin", "check", *subjects, "--json", timeout=600)
    assert done.code == 1
    found: Verdicts = {}
    for item in done.json():
        found.setdefault(item["method"], {})[item["check"]] = (item["verdict"], item["detail"])
    assert list(found) == list(subjects)
    return found


one_worker = pytest.mark.xdist_group("verdicts")


@one_worker
def test_a_good_method_passes_and_what_cannot_be_looked_at_is_said(verdicts: Verdicts) -> None:
    found = verdicts["good"]
    assert len(found) == 16
    nothing = {check: detail for check, (verdict, detail) in found.items() if verdict == "nothing to check"}
    if not HAS_TORCH:
        assert "keeps no state" in nothing.pop("goes on after a kill")
    assert nothing == {
        "claims and numbers": "names no claims and no reported numbers",
        "forward on fake CUDA": "nothing to trace: does not use torch",
    }
    assert all(verdict != "failed" for verdict, _ in found.values())


@one_worker
def test_a_module_without_examples_has_nothing_to_trace(verdicts: Verdicts) -> None:
    pytest.importorskip("torch")
    assert verdicts["good-torch"]["forward on fake CUDA"] == (
        "nothing to check",
        "nothing to trace: forward_examples() yields nothing",
    )
    assert verdicts["good-torch"]["paper preset"] == ("nothing to check", "has no paper preset")
    assert verdicts["good-module"]["forward on fake CUDA"] == ("passed", "1 modules")


@one_worker
@pytest.mark.parametrize("check", BROKEN)
def test_each_check_fails_on_its_broken_plugin_and_only_there(verdicts: Verdicts, check: str) -> None:
    if check in ("forward on fake CUDA", "goes on after a kill"):
        pytest.importorskip("torch")
    found = verdicts[named(check)]
    assert {name for name, (verdict, _) in found.items() if verdict == "failed"} == {check}, found


CLAIM = """
[[claim]]
id = "x"
statement = "s"
form = "superiority"
task = "distributed-training-simulated"
metric = "accuracy"
method = "bytegrad"
against = "ddp"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("x", "x", ""),
        ('metric = "accuracy"', 'metric = "acuracy"', "has no metric 'acuracy' - did you mean 'accuracy'?"),
        ('against = "ddp"', 'against = "dpp"', "there is no method 'dpp' - did you mean"),
        (
            'against = "ddp"',
            'against = "ddp"\ndata = ["digits-tabel"]',
            "there is no data set 'digits-tabel' - did you",
        ),
        ('"superiority"', '"best"', "form cannot be 'best'"),
        ("[[claim]]", "[claim", "not valid TOML"),
    ],
)
def test_claims_name_metrics_and_methods_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    pytest.importorskip("torch")
    package = tmp_path / f"claims_{abs(hash((old, new)))}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "claims.toml").write_text(CLAIM.replace(old, new))
    monkeypatch.syspath_prepend(str(tmp_path))
    method = MethodSpec("m", "1", (), "x:X", claims=f"{package.name}:claims.toml")
    subject: Any = SimpleNamespace(method=method, task="distributed-training-simulated", registry=get_registry())
    if message:
        with pytest.raises(checks.Failed) as caught:
            checks.check_claims(subject)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    else:
        assert checks.check_claims(subject) == "1 claims, 0 reported numbers"


def test_a_plugin_that_passes_leaves_with_exit_code_0(cli: Any) -> None:
    install(cli, "good", HEAD + GOOD, PAPER, "")
    assert cli("plugin", "check", "good").code == 0


def test_the_checks_run_inside_a_strangers_pytest(cli: Any) -> None:
    import subprocess
    import sys

    install(cli, "subject", HEAD + GOOD.replace('ctx.seed_for("run", "m")', "7"), PAPER, "")
    (cli.folder / "test_mine.py").write_text(
        "import pytest\n@pytest.mark.benchsuite_method('subject')\n"
        "def test_conformance(conformance_check):\n    conformance_check()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=cli.folder, env=cli.full_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"1 failed, {13 if HAS_TORCH else 12} passed, {2 if HAS_TORCH else 3} skipped" in done.stdout
    assert "other_seed,_other_training" in done.stdout
