from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

FORBIDDEN = ("torch", "numpy", "pandas", "scipy", "torch_geometric", "rich")


def test_listing_imports_nothing_heavy(shared_cli: Any) -> None:
    script = (
        "import sys, json\nfrom benchsuite.cli import main\n"
        "try:\n    main(['list', '--json'])\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        f"print(json.dumps([m for m in {FORBIDDEN!r} if m in sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=shared_cli.full_environment()
    )
    assert json.loads(done.stderr) == []
    assert "toy-graph" in done.stdout


def test_importing_the_package_is_light() -> None:
    script = f"import benchsuite, sys; print([m for m in {FORBIDDEN!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_broken_plugin_is_reported_by_name_and_harms_nobody(cli: Any) -> None:
    cli.install("explosive", "raise RuntimeError('boom\\nsecond line')")
    cli.install("confused", "def benchsuite_methods():\n    return ['not a spec']")
    cli.install(
        "thief",
        "from benchsuite.core import DatasetSpec\n"
        "def benchsuite_datasets():\n    return [DatasetSpec('toy-ring', '1', 'x:Y', 'x:y')]",
    )
    done = cli("list", "--json")
    assert done.code == 0
    listing: Any = done.json()
    problems = {item["plugin"]: item["error"] for item in listing["broken"]}
    assert problems["explosive"] == "RuntimeError: boom second line"
    assert "not a spec" in problems["confused"]
    assert "already registered by 'skeletons'" in problems["thief"]
    assert "toy-graph" in [task["name"] for task in listing["tasks"]]
    assert cli("run", "--task", "toy-graph", "--method", "toy-copy").code == 0
    health = cli("doctor")
    assert health.code == 1
    assert "PROBLEM plugin explosive: RuntimeError: boom second line" in health.out


def test_hooks_that_watch_are_called_and_may_fail(cli: Any) -> None:
    cli.install(
        "watcher",
        "import pathlib\nfrom benchsuite.core import hookimpl\n"
        "@hookimpl\ndef benchsuite_run_started(run):\n    raise ValueError('no')\n"
        "@hookimpl\ndef benchsuite_run_finished(result):\n"
        "    pathlib.Path('seen').write_text(result.status)\n",
    )
    done = cli("run", "--task", "toy-graph", "--method", "toy-copy")
    assert done.code == 0
    assert "benchsuite_run_started raised ValueError: no" in done.err
    assert (cli.folder / "seen").read_text() == "ok"


def test_code_of_plugins_may_print_exit_and_raise_anything_at_import(cli: Any) -> None:
    parser = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--lr', required=True)\n"
    cli.install("argues", parser + "parser.parse_args()")
    cli.install("leaves", "raise SystemExit('bye')")
    cli.install("odd", "class Odd(BaseException):\n    pass\nraise Odd('strange')")
    cli.install("leaves_late", "def benchsuite_methods():\n    import sys\n    sys.exit(3)")
    cli.install(
        "talks",
        "import os\nprint('hello')\nos.write(1, b'through the descriptor\\n')\n"
        "from benchsuite.core import MethodSpec\n"
        "def benchsuite_methods():\n    print('again')\n"
        "    return [MethodSpec('talker', '1', ('toy-graph',), 'talks_method:M')]",
    )
    (cli.plugins / "talks_method.py").write_text("print('and once more')\nraise SystemExit(4)\n")
    done = cli("list", "--json")
    assert done.code == 0
    listing: Any = done.json()  # nothing else on the standard output
    problems = {item["plugin"]: item["error"] for item in listing["broken"]}
    ends = "it ends the process that imports it (exit code"
    assert problems["argues"].startswith(f"{ends} 2): ")
    assert "--lr" in problems["argues"]
    assert problems["leaves"] == f"{ends} bye)"
    assert problems["leaves_late"] == f"{ends} 3)"
    assert problems["odd"] == "Odd: strange"
    assert "talker" in [method["name"] for method in listing["methods"]]
    assert all(text in done.err for text in ("hello", "through the descriptor", "again"))

    run = cli("run", "--task", "toy-graph", "--json")
    assert run.code == 1
    assert {result["status"] for result in run.json()} == {"ok"}
    assert f"talker: cannot be imported: {ends} 4)" in run.err


def test_of_two_plugins_with_one_name_the_bundled_one_stays(cli: Any) -> None:
    stranger = (
        "from benchsuite.core import MethodSpec\n"
        "def benchsuite_methods():\n    return [MethodSpec({!r}, '9', ('toy-graph',), 'x:Y', title='stranger')]"
    )
    cli.install("aaa", stranger.format("reft"))  # earlier by name
    cli.install("reft", stranger.format("another"))  # the name of a bundled plugin, from another package
    listing: Any = cli("list", "--json").json()
    problems = {item["plugin"]: item["error"] for item in listing["broken"]}
    assert problems["aaa"] == "ValueError: 'reft' is already registered by 'reft'"
    assert problems["reft"] == ("benchsuite and reft both have a plugin of this name: the first is used, uninstall one")
    assert "stranger" not in [method["title"] for method in listing["methods"]]
