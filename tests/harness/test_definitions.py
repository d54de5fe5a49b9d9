"""The source digest: what changes it, what does not, and that every Python computes the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from benchsuite.core.errors import ConfigError
from benchsuite.core.method import MethodSpec
from benchsuite.core.registry import Registry, get_registry
from benchsuite.core.task import TaskSpec
from benchsuite.harness.definitions import Definitions
from benchsuite.harness.identity import SourceDigests, methods_in_use

Digest = Callable[[Mapping[str, str]], str]

BASE = {
    "method": '''
        """A method."""
        import numpy as np
        from functools import partial
        from .model import Network, ALPHA
        from pkg import losses
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from .reader import Data

        RATE = 0.1

        class Method:
            """Trains."""
            rate = RATE
            kind: str = "plain"

            def fit(self, data: Data, steps: int = 3) -> np.ndarray:
                # a comment
                from .helpers import first
                total = 0
                for step in range(steps):
                    total += losses.loss(first(data), ALPHA)
                return [Network(x) for x in data]
        ''',
    "model": """
        from .layers import Layer
        ALPHA, BETA = 1, 2

        class Network(Layer):
            width = 4
        """,
    "layers": """
        from . import losses

        class Layer:
            def forward(self, x):
                return losses.scale(x) - self.bias

            def __init__(self, x):
                self.bias = 0
        """,
    "losses": """
        def loss(a, b):
            return abs(scale(a) - b) if a else loss(b, 1)

        def scale(x):
            return 2 * x
        """,
    "helpers": """
        def first(items):
            return items[0]
        """,
    "reader": "class Data: ...",
    "unrelated": "x = 1",
}


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """Return a function that writes a package and returns the digest of its method."""
    import textwrap

    counter = iter(range(1000))

    def of(modules: Mapping[str, str], where: str = "pkg.method:Method") -> str:
        folder = tmp_path / str(next(counter))
        for name, text in {"__init__": "", **modules}.items():
            path = folder / "pkg" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(str(folder))
        import importlib

        importlib.invalidate_caches()
        return Definitions({"pkg"}, ("pkg.apart",)).digest(where)

    return of


def edited(module: str, old: str, new: str) -> dict[str, str]:
    assert BASE[module].count(old) == 1
    return {**BASE, module: BASE[module].replace(old, new)}


LEAVES_IT = {
    "comment": edited("method", "# a comment", "# another, longer comment"),
    "docstring of a class": edited("method", '"""Trains."""', '"""Learns well."""'),
    "docstring of the module": edited("method", '"""A method."""', ""),
    "format": edited("losses", "abs(scale(a) - b)", "abs(\n        scale( a )-b )"),
    "annotation of a function": edited("method", "steps: int = 3", "steps: float = 3"),
    "unrelated module": edited("unrelated", "x = 1", "x = 2"),
    "unused definition": edited("losses", "def scale", "def unused():\n            return 9\n\n        def scale"),
    "unused import": edited("losses", "def loss", "import json\n\n        def loss"),
    "order": {name: BASE[name] for name in reversed(BASE)},
    "renamed module": {
        **{name: text.replace("layers", "blocks") for name, text in BASE.items() if name != "layers"},
        "blocks": BASE["layers"],
    },
    "module in a sub-package": {
        **{name: text.replace(".model ", ".nets.model ") for name, text in BASE.items() if name != "model"},
        "nets/__init__": "",
        "nets/model": BASE["model"].replace(".layers", "..layers"),
    },
    "definition moved to another file": {
        **edited("losses", "def scale(x):\n            return 2 * x", "from .helpers import scale"),
        "helpers": BASE["helpers"] + "\n        def scale(x):\n            return 2 * x\n",
    },
    "constant moved to another file": {
        **edited("method", "RATE = 0.1", "from .unrelated import RATE"),
        "unrelated": "x = 1\nRATE: float = 0.1",
    },
    "renamed function": {
        **edited("method", "losses.loss", "losses.cost"),
        "losses": BASE["losses"].replace("loss(", "cost("),
    },
    "imported by another road": {
        **edited("method", "from pkg import losses", "import pkg.losses"),
        "method": BASE["method"].replace("from pkg import losses", "import pkg.losses").replace(
            "losses.loss(", "pkg.losses.loss("
        ),
    },
    "re-exported": {
        **edited("method", "from .model import Network, ALPHA", "from .nets import Network, ALPHA"),
        "nets": "from pkg.model import *",
    },
    "local import moved to the top": {
        **BASE,
        "method": BASE["method"]
        .replace("from .helpers import first\n", "pass\n")
        .replace("from pkg import losses", "from pkg import losses\n        from .helpers import first"),
    },
}  # fmt: skip

CHANGES_IT = {
    "constant": edited("method", "RATE = 0.1", "RATE = 0.2"),
    "type of a constant": edited("model", "width = 4", "width = 4.0"),
    "default": edited("method", "steps: int = 3", "steps: int = 4"),
    "class field": edited("method", 'kind: str = "plain"', 'kind: str = "fancy"'),
    "operator": edited("losses", "abs(scale(a) - b)", "abs(scale(a) + b)"),
    "helper two imports away": edited("losses", "return 2 * x", "return 3 * x"),
    "helper imported inside a function": edited("helpers", "items[0]", "items[1]"),
    "one of two unpacked": edited("model", "ALPHA, BETA = 1, 2", "ALPHA, BETA = 2, 1"),
    "the other of two unpacked": edited("method", "import Network, ALPHA", "import Network, BETA as ALPHA"),
    "base class": edited("model", "Network(Layer)", "Network(Layer, object)"),
    "name of a class": {
        **edited("method", "import Network, ALPHA", "import Net as Network, ALPHA"),
        "model": BASE["model"].replace("class Network", "class Net"),
    },
    "target of an external import": edited("layers", "from . import losses", "from math import sqrt as losses"),
    "another library of the same name": {
        **edited("method", "from functools import partial", "from functools import partial as abs"),
        "losses": BASE["losses"].replace("def loss", "from math import fabs as abs\n\n        def loss"),
    },
    "decorator": edited("losses", "def scale", "@staticmethod\n        def scale"),
    "recursion": edited("losses", "loss(b, 1)", "loss(b, 2)"),
    "branch": edited("losses", "if a else", "if not a else"),
}  # fmt: skip


@pytest.mark.parametrize("modules", LEAVES_IT.values(), ids=LEAVES_IT)
def test_what_leaves_the_digest(digest: Digest, modules: dict[str, str]) -> None:
    assert digest(modules) == digest(BASE)


@pytest.mark.parametrize("modules", CHANGES_IT.values(), ids=CHANGES_IT)
def test_what_changes_the_digest(digest: Digest, modules: dict[str, str]) -> None:
    assert digest(modules) != digest(BASE)


def test_every_python_computes_the_same(digest: Digest) -> None:
    """The number is this test's own, computed once: tox compares the Pythons with it."""
    varied = """
        import sys
        from dataclasses import dataclass, field

        @dataclass(frozen=True)
        class Method:
            width: int = 3
            names: tuple[str, ...] = field(default_factory=tuple)

            def fit(self, data, /, *rest, seed=0, **more):
                text = f"{data!r:>{self.width}} and {seed:.3f} {more=} {''.join(str(x) for x in rest)}" "tail"
                match data:
                    case {"a": [1, *others], **remaining} if (n := len(others)) > 2:
                        return n, remaining
                    case None | True:
                        raise ValueError from None
                try:
                    with open(text) as a, open(text) as b:
                        return lambda x, *, y=None: (x, y, a, b, -1.5e300, 2j, b"x", ..., not x)
                except (OSError, KeyError) as error:
                    del error
                    async def later():
                        async for item in data:
                            yield {**more, "k": [*rest]}, {i for i in data if i}, data[1:, ::2]
                    return later
                finally:
                    print(text, sep="", file=sys.stderr)
        """
    assert digest({"method": varied}) == "33b69ff4ee65555d4026bdd914abe191be7d5a7b4c76bc2f9b5b192148a78aab"


def test_an_import_keeps_the_identity_of_what_it_names(digest: Digest) -> None:
    both = {
        "a": "def f(x):\n    return x + K\nK = 1",
        "b": "def f(x):\n    return x + K\nK = 2",
        "method": "from .{0} import f\nfrom .{1} import f as g\n\ndef Method(x):\n    return f(x) - g(x)\n",
    }
    first = digest({**both, "method": both["method"].format("a", "b")})
    assert digest({**both, "method": both["method"].format("b", "a")}) != first
    assert digest({**both, "method": both["method"].format("a", "a")}) != first


def test_definitions_that_use_each_other_are_told_apart(digest: Digest) -> None:
    source = "def Method(x):\n    return odd(x)\n\ndef odd(x):\n    return x and even(x - 1)\n\n"
    source += "def even(x):\n    return {}\n"
    first = digest({"method": source.format("not x or odd(x - 1)")})
    assert digest({"method": source.format("not x or odd(x - 2)")}) != first
    assert digest({"method": source.format("not x or Method(x - 1)")}) != first


@pytest.mark.parametrize(
    ("acting", "changed"),
    [
        ("TABLE['f'] = 1", "TABLE['f'] = 2"),
        ("for name in 'ab':\n    TABLE[name] = name", "for name in 'abc':\n    TABLE[name] = name"),
        ("@register\ndef g():\n    return 1", "@register\ndef g():\n    return 2"),
        ("class C(Base):\n    x = 1", "class C(Base):\n    x = 2"),
    ],
)
def test_statements_that_act_at_import_count(digest: Digest, acting: str, changed: str) -> None:
    table = "TABLE = {}\ndef register(f):\n    TABLE[f.__name__] = f\n    return f\n"
    table += "class Base:\n    def __init_subclass__(cls):\n        TABLE['x'] = cls\n"
    method = "from .table import TABLE\nfrom . import entries\n\ndef Method():\n    return TABLE\n"

    def of(entries: str) -> str:
        imports = "from .table import TABLE, Base, register\n"
        return digest({"table": table, "entries": imports + entries, "method": method})

    assert of(acting) != of(changed)
    assert of(acting + "\n\ndef unused():\n    return 1\n") == of(acting)


def test_a_module_taken_as_a_value_counts_as_a_whole(digest: Digest) -> None:
    method = "from . import parts\n\ndef Method(name):\n    return getattr(parts, name)\n"
    assert digest({"method": method, "parts": "a = 1"}) != digest({"method": method, "parts": "a = 2"})
    assert digest({"method": method, "parts": "a = 1"}) != digest({"method": method, "parts": "b = 1"})


def test_strings_that_name_definitions_are_followed(digest: Digest) -> None:
    method = "def Method():\n    return 'pkg.parts:a'\n"
    assert digest({"method": method, "parts": "a = 1"}) != digest({"method": method, "parts": "a = 2"})


def test_modules_that_carry_runs_are_named_not_followed(digest: Digest) -> None:
    method = "from pkg.apart import {0}\n\ndef Method():\n    return {0}()\n"
    first = digest({"method": method.format("f"), "apart": "def f(): return 1"})
    assert digest({"method": method.format("f"), "apart": "def f(): return 2"}) == first
    assert digest({"method": method.format("g"), "apart": "def g(): return 1"}) != first


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("from .gone import f\ndef Method(): return f", "pkg.method imports pkg.gone, which cannot be found"),
        ("from .parts import f\ndef Method(): return f", "imports f from pkg.parts, which does not define it"),
        ("from . import parts\ndef Method(): return parts.f", "uses pkg.parts.f, which cannot be found"),
        ("def Other(): ...", "pkg.method defines no Method"),
    ],
)
def test_what_cannot_be_found_is_an_error(digest: Digest, source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        digest({"method": source, "parts": ""})


def test_a_missing_alternative_is_no_error(digest: Digest) -> None:
    source = "try:\n    from .fast import f\nexcept ImportError:\n    from .slow import f\ndef Method(): return f\n"
    assert digest({"method": source, "slow": "f = 1"}) != digest({"method": source, "slow": "f = 2"})


def test_a_file_that_does_not_parse_counts_as_a_whole(digest: Digest) -> None:
    assert digest({"method": "def Method(:"}) != digest({"method": "def Method(::"})


class TestRows:
    """The digest of a row: task, method, readers, and the methods asked for."""

    @pytest.fixture
    def registry(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
        self.code = tmp_path / "rowcode.py"
        self.code.write_text("class T: ...\nclass M:\n    x = 1\nclass Clean:\n    y = 1\nclass Other:\n    z = 1\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        registry = Registry(get_registry().manager)
        registry.tasks["t"] = TaskSpec("t", "t", "rowcode:T", uses=("{attack}",))
        for name, cls, uses in (
            ("m", "M", ()),
            ("attack", "M", ("clean",)),
            ("clean", "Clean", ()),
            ("o", "Other", ()),
        ):
            registry.methods[name] = MethodSpec(name, "1", ("t",), f"rowcode:{cls}", uses=uses)
            registry.owners[name] = "rowcode"
        return registry

    def digests(self, registry: Registry, attack: str) -> tuple[str, str]:
        found = SourceDigests(registry).of(registry.tasks["t"], registry.methods["m"], [], {"attack": attack})
        return found.source, found.shared

    def test_what_ctx_method_may_return_is_followed(self, registry: Registry) -> None:
        used = methods_in_use(registry, registry.tasks["t"], registry.methods["m"], {"attack": "attack"})
        assert [spec.name for spec in used] == ["attack", "clean"]
        with_attack, with_other = self.digests(registry, "attack"), self.digests(registry, "o")
        self.code.write_text(self.code.read_text().replace("y = 1", "y = 2"))
        assert self.digests(registry, "attack")[0] != with_attack[0]
        assert self.digests(registry, "o")[0] == with_other[0]

    def test_cached_steps_are_shared_by_the_rows_of_a_plugin_and_see_all_their_code(self, registry: Registry) -> None:
        source, shared = self.digests(registry, "o")
        sibling = SourceDigests(registry).of(registry.tasks["t"], registry.methods["clean"], [], {"attack": "o"})
        assert sibling.source != source
        assert sibling.shared == shared
        self.code.write_text(self.code.read_text().replace("y = 1", "y = 2"))
        assert self.digests(registry, "o")[0] == source
        assert self.digests(registry, "o")[1] != shared
