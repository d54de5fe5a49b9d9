"""The static site: its files as they are, then as Debian's chromium shows them."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pluggy
import pytest

from benchsuite.core.claim import Claim
from benchsuite.core.config import Case, Preset
from benchsuite.core.dataset import DatasetSpec
from benchsuite.core.errors import MissingDependency, UserError
from benchsuite.core.method import MethodSpec, Paper
from benchsuite.core.registry import Registry
from benchsuite.core.result import Artifact, Definition, Failure, MetricInfo, Result, Timing
from benchsuite.core.task import TaskSpec
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.build import Leaderboard, build_from, reported_of
from benchsuite.leaderboard.charts import costs_of, pareto_front, row_names
from benchsuite.leaderboard.claims import judge
from benchsuite.leaderboard.pages import method_page, slug, task_page
from benchsuite.leaderboard.site import build_site, write_site
from benchsuite.leaderboard.tables import Table, build_tables

for library in ("jinja2", "altair", "vl_convert", "itables", "markdown_it"):
    pytest.importorskip(library, reason="the site's libraries: pip install 'benchsuite[site]'")

HOSTILE = '&<script>window.hacked = 1</script>"\'><img src=x onerror="window.hacked=1">\u2028</script>'
VOID = {"meta", "link", "img", "br", "input", "hr"}
LARGEST_PAGE = 3_000_000
METRICS = [
    MetricInfo(name="accuracy", direction="max", unit="fraction", kind="quality", doc="share of right answers"),
    MetricInfo(name="error_rate", direction="min", unit="m", kind="quality", doc=HOSTILE),
    MetricInfo(name=HOSTILE, direction="max", unit=HOSTILE, kind="quality"),
]
CARD = f"""# A card

See [the paper](https://example.org/paper), [not this](javascript:alert(1)) and [nor this](../secret.md).

![no picture](https://example.org/tracker.png)

| a | b |
|---|---|
| 1 | 2 |

{HOSTILE}

<b onclick="window.hacked = 1">bold</b>
"""
REPORTED = (
    "task,data,row,metric,value,unit,source\n"
    "a-task,small,Ours,accuracy,0.91,fraction,Table 1\n"
    "a-task,small,Ours,error_rate,3,m,Table 1\n"
    "a-task,large,=Theirs <b>,accuracy,0.8,fraction,Table 2\n"
)


@dataclass
class Page(HTMLParser):
    """The elements of a page, and its text."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    open_elements: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open_elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_elements.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def parse(content: bytes) -> Page:
    page = Page()
    page.feed(content.decode())
    page.close()
    assert page.open_elements == []
    return page


def png(width: int = 8, height: int = 4) -> bytes:
    """Return a grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + b"\x80" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry of one task and two methods of one paper, with a hostile card."""
    folder = tmp_path_factory.mktemp("packages")
    package = folder / "paper_of_the_site_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "card.md").write_text(CARD)
    (package / "reported.csv").write_text(REPORTED)
    paper = Paper("A paper", "A. Author", "A venue", 2020, "javascript:alert(1)")
    files = {"card": f"{package.name}:card.md", "reported": f"{package.name}:reported.csv"}
    presets = {"paper": Preset({"lr": 0.5}, (Case({"dataset": "x"}, {"lr": 1}),)), "embedded": Preset({"lr": 0.1})}
    methods = [
        MethodSpec("base", "1", ("a-task",), "x:X", role="baseline", title="The base", paper=paper, **files),
        MethodSpec("better", "1", ("a-task",), "x:X", title="The better", paper=paper, presets=presets, **files),
    ]
    data = DatasetSpec("a-set", "1", "x:X", "x:x", "A set", homepage="https://example.org", licence="MIT", citation="C")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield Registry(
            pluggy.PluginManager("benchsuite"),
            tasks={
                "a-task": TaskSpec("a-task", "The task", "x:X"),
                "new-task": TaskSpec("new-task", "A new task", "x:X"),
            },
            datasets={"a-set": data},
            methods={method.name: method for method in methods},
        )


def make_results(build: Callable[..., Result], folder: Path) -> list[StoredResult]:
    """Return the results of four methods on two tasks, with everything that can go wrong in one of them."""
    definition = Definition(title="The task", seed_axes=["run"], metrics=METRICS, rank_by="accuracy", reference="base")
    common: dict[str, Any] = {"definition": definition, "peak_memory_mb": 90.0}

    def row(name: str, accuracy: float, seconds: float, **changes: Any) -> list[Result]:
        return [
            build(
                method=name,
                seeds={"run": seed},
                scores={
                    "accuracy": accuracy * (1 + seed / 100),
                    "error_rate": 9 - accuracy - seed / 50,
                    HOSTILE: accuracy,
                },
                timings={"fit": Timing(wall_s=seconds, cpu_s=seconds + seed)},
                parameters=int(1000 * accuracy),
                **(common | {"environment": {"python": "3.11", "commit": "c" * 40, "dirty": True}} | changes),
            )
            for seed in range(3)
        ]

    failed = build(
        method="broken",
        status="failed",
        scores={},
        error=Failure(message=HOSTILE),
        **common,
    )
    partly = row("partly", 0.7, 4.0, environment={"cpu": HOSTILE, "libraries": {"numpy": "2", "<b>": None}})
    partly[2] = partly[2].model_copy(update={"status": "timeout", "scores": {}})
    results = [
        *row("base", 0.5, 1.0),
        *row("better", 0.8, 200.0),
        *row(HOSTILE, 0.6, 2.0, label=HOSTILE),
        *row("old", 0.9, 3.0, source_digest="o" * 64),
        *partly,
        failed,
        build(task=HOSTILE, method="base", data=_data(HOSTILE), protocol={HOSTILE: HOSTILE}, **common),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    stored = []
    for index, result in enumerate(results):
        path = folder / str(index) / "attempt-1" / "result.json"
        stored.append(StoredResult(result, path))
    return stored


def _data(name: str) -> dict[str, dict[str, str]]:
    return {role: {"name": name, "version": "1", "hash": "d" * 64} for role in ("train", "test")}


CLAIMS = [
    Claim("up", "better beats base", "superiority", "a-task", "accuracy", "better", "base"),
    Claim("down", "base beats better", "superiority", "a-task", "accuracy", "base", "better"),
    Claim("never", f"nobody tried {HOSTILE}", "superiority", "new-task", "accuracy", "better", "base"),
]


def present_digest(result: Result) -> str:
    return "s" * 64


def make_board(stored: list[StoredResult]) -> Leaderboard:
    tables = build_tables(stored, present_digest)
    return Leaderboard(tables, judge(CLAIMS, tables), [], [], {})


@pytest.fixture(scope="module")
def stored(make_result: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> list[StoredResult]:
    return make_results(make_result, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def files(stored: list[StoredResult], registry: Registry) -> dict[str, bytes]:
    return build_site(make_board(stored), registry, stored)


@pytest.fixture(scope="module")
def pages(files: dict[str, bytes]) -> dict[str, Page]:
    return {name: parse(content) for name, content in files.items() if name.endswith(".html")}


def table_of(stored: list[StoredResult], task: str = "a-task") -> Table:
    return next(table for table in build_tables(stored, present_digest) if table.task == task)


def test_the_same_results_give_the_same_bytes(
    stored: list[StoredResult], registry: Registry, files: dict[str, bytes]
) -> None:
    assert build_site(make_board(stored[::-1]), registry, stored[::-1]) == files


def test_every_task_and_method_has_a_page(pages: dict[str, Page]) -> None:
    tasks = {task_page(name) for name in ("a-task", "new-task", HOSTILE)}
    methods = {method_page(name) for name in ("base", "better", "broken", "old", "partly", HOSTILE)}
    assert pages.keys() == {"index.html"} | tasks | methods
    assert all(Path(name).name == name for name in pages)


def test_every_link_leads_somewhere(files: dict[str, bytes], pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        references = [a["href"] for tag in ("a", "link") for a in page.named(tag)]
        references += [a["src"] for tag in ("script", "img") for a in page.named(tag) if "src" in a]
        for reference in references:
            if reference.startswith(("https://", "data:")):
                continue
            target, _, anchor = reference.partition("#")
            assert not target or target in files, (name, reference)
            if anchor:
                assert anchor in pages[target or name].ids, (name, reference)
        assert len(page.ids) == len(set(page.ids)), name


def test_nothing_is_loaded_from_the_network(files: dict[str, bytes], pages: dict[str, Page]) -> None:
    for page in pages.values():
        loaded = [a.get("src", "") for tag in ("script", "img", "iframe") for a in page.named(tag)]
        loaded += [a["href"] for a in page.named("link")]
        assert all("//" not in address for address in loaded)
    for name in ("assets/style.css", "assets/tables.css"):
        css = files[name].decode()
        assert "@import" not in css
        assert css.count("url(") == css.count("url(data:")


def test_strangers_strings_stay_text(files: dict[str, bytes], pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert b"<script>" not in files[name], name
        for tag, attributes in page.elements:
            assert not any(attribute.startswith("on") for attribute in attributes), (name, tag)
            assert not attributes.get("href", "").startswith("javascript:"), name
        for attributes in page.named("script"):
            assert attributes.get("type") == "application/json" or attributes["src"].startswith("assets/")
        assert not page.named("b")
        assert all(a["src"].startswith("pictures/") for a in page.named("img"))
    assert HOSTILE in pages[task_page("a-task")].text
    assert HOSTILE in pages[method_page(HOSTILE)].text
    assert HOSTILE.partition("\u2028")[0] in pages[method_page("better")].text


def test_json_cannot_leave_its_element(files: dict[str, bytes]) -> None:
    text = files[task_page("a-task")].decode()
    start = text.index('class="chart-data">') + len('class="chart-data">')
    data = text[start : text.index("</script>", start)]
    assert "\\u003cscript\\u003e" in data
    assert "\\u2028" in data
    assert not set(data) & {"<", ">", "&", "\u2028", "\u2029"}


def test_tables_can_be_read_aloud(files: dict[str, bytes], pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        own = Page()
        own.feed(files[name].partition(b'<div class="card">')[0].decode())
        assert len(own.named("table")) == len(own.named("caption")), name
        assert all("scope" in heading for heading in own.named("th")), name
        assert page.named("html") == [{"lang": "en"}]
        assert len(page.named("h1")) == len(page.named("main")) == 1


def test_pages_stay_small(files: dict[str, bytes]) -> None:
    assert max(len(content) for name, content in files.items() if name.endswith(".html")) < LARGEST_PAGE


def test_rows_tell_where_they_come_from(pages: dict[str, Page], stored: list[StoredResult]) -> None:
    text = pages[task_page("a-task")].text
    for item in stored:
        if item.result.run.task == "a-task":
            assert item.result.fingerprint in text
            assert f"benchsuite rerun {item.result.fingerprint[:16]}" in text
    assert f"{'c' * 40} (with local changes)" in text
    assert f"{'o' * 64} (stale: the present code is another)" in " ".join(text.split())
    assert "python 3.11" in text


def test_verdicts_are_shown_alike(files: dict[str, bytes]) -> None:
    index = files["index.html"].decode()
    assert '<span class="verdict yes">holds on a-set</span>' in index
    assert '<span class="verdict no">does not hold on a-set</span>' in index
    assert '<span class="verdict none">not run</span>' in index
    assert "not obtained" in index
    assert "benchsuite run --task a-task --dataset a-set --method better --method base --seeds 3" in index


def test_a_method_page_has_what_is_known(pages: dict[str, Page]) -> None:
    text = " ".join(pages[method_page("better")].text.split())
    for part in (
        "A. Author: A paper, A venue 2020",
        "lr=0.1",
        "dataset=x: lr=1",
        "Reported by the paper, other conditions",
        "91.00 %",
        "3 m",
        "=Theirs <b>",
        "MIT",
        "A card",
        "the paper",
        '<b onclick="window.hacked = 1">bold</b>',
    ):
        assert part in text, part
    assert "No plugin installed here registers this method" in pages[method_page("old")].text


def test_pictures_beside_results_are_copied(
    make_result: Callable[..., Result], registry: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "attempt-1"
    (folder / "artifacts").mkdir(parents=True)
    good, secret = png(), png(3, 3)
    (tmp_path / "secret.png").write_bytes(secret)
    (folder / "artifacts" / "good.png").write_bytes(good)
    (folder / "artifacts" / "page.png").write_bytes(b"<html>")
    (folder / "artifacts" / "changed.png").write_bytes(good)
    (folder / "artifacts" / "link.png").symlink_to(tmp_path / "secret.png")

    def artifact(path: str, content: bytes) -> Artifact:
        return Artifact(path=path, sha256=hashlib.sha256(content).hexdigest())

    artifacts = {
        "good.png": artifact("artifacts/good.png", good),
        "page.png": artifact("artifacts/page.png", b"<html>"),
        "changed.png": artifact("artifacts/changed.png", secret),
        "link.png": artifact("artifacts/link.png", secret),
        "up.png": artifact("../../secret.png", secret),
        "absolute.png": artifact(str(tmp_path / "secret.png"), secret),
        "gone.png": artifact("artifacts/gone.png", secret),
    }
    item = StoredResult(make_result(method="better", artifacts=artifacts), folder / "result.json")
    site = build_site(make_board([item]), registry, [item])
    shown = {name: content for name, content in site.items() if name.startswith("pictures/")}
    assert shown == {f"pictures/{hashlib.sha256(good).hexdigest()}.png": good}
    (image,) = parse(site[method_page("better")]).named("img")
    assert (image["src"], image["width"], image["height"]) == (next(iter(shown)), "8", "4")


def test_sounds_beside_results_can_be_played(
    make_result: Callable[..., Result], registry: Registry, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "attempt-1"
    (folder / "artifacts").mkdir(parents=True)
    good = b"RIFF\x24\0\0\0WAVEfmt "
    for name, content in {"good.wav": good, "page.wav": b"<html>", "song.mid": b"MThd"}.items():
        (folder / "artifacts" / name).write_bytes(content)
    artifacts = {
        name: Artifact(path=f"artifacts/{name}", sha256=hashlib.sha256(content).hexdigest())
        for name, content in {"good.wav": good, "page.wav": b"<html>", "song.mid": b"MThd"}.items()
    }
    item = StoredResult(make_result(method="better", artifacts=artifacts), folder / "result.json")
    site = build_site(make_board([item]), registry, [item])
    shown = {name: content for name, content in site.items() if name.startswith("sounds/")}
    assert shown == {f"sounds/{hashlib.sha256(good).hexdigest()}.wav": good}
    page = parse(site[method_page("better")])
    (audio,) = page.named("audio")
    assert audio["src"] == next(iter(shown))
    assert not page.named("img")
    assert b"media-src 'self'" in site[method_page("better")]


def test_a_missing_library_is_told(
    stored: list[StoredResult], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "altair" else find(name))
    with pytest.raises(MissingDependency, match=r"altair.*pip install 'benchsuite\[site\]'"):
        build_site(make_board(stored), registry)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("card.md", "package_with_a_bad_card:card.md: not a text in UTF-8"),
        ("none.md", "cannot read package_with_a_bad_card:none.md"),
    ],
)
def test_a_card_that_cannot_be_read_is_told_on_its_page(
    stored: list[StoredResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: str, message: str
) -> None:
    package = tmp_path / "package_with_a_bad_card"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "card.md").write_bytes(b"\xff")
    monkeypatch.syspath_prepend(str(tmp_path))
    method = MethodSpec("better", "1", ("a-task",), "x:X", card=f"package_with_a_bad_card:{card}")
    registry = Registry(pluggy.PluginManager("benchsuite"), methods={"better": method})
    assert message in parse(build_site(make_board(stored), registry)[method_page("better")]).text


def test_a_plugin_with_bad_files_does_not_cost_the_others_their_tables(
    stored: list[StoredResult], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package_with_bad_files"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "claims.toml").write_text("[[claim")
    monkeypatch.syspath_prepend(str(tmp_path))
    files = {"claims": f"{package.name}:claims.toml", "reported": f"{package.name}:none.csv"}
    bad = MethodSpec("bad", "1", ("a-task",), "x:X", **files)
    board = build_from(stored, [], replace(registry, methods={**registry.methods, "bad": bad}))
    assert len(board.tables) == len(build_tables(stored, present_digest))
    assert [problem.partition(": ")[0] for problem in board.problems] == [
        "package_with_bad_files:claims.toml",
        "cannot read package_with_bad_files:none.csv",
    ]
    index = parse(build_site(board, registry)["index.html"]).text
    assert all(problem in index for problem in board.problems)


def test_reported_numbers_bear_the_papers_title_whichever_row_of_its_plugin_comes_last(registry: Registry) -> None:
    base, better = registry.methods["base"], registry.methods["better"]
    opponent = replace(base, name="an-opponent-of-no-paper", paper=None)
    for rows in ([opponent, better], [better, opponent], [base, better, opponent]):
        numbers, problems = reported_of(rows)
        assert {number.paper for number in numbers} == {"A paper"}
        assert problems == []


def test_the_site_is_written_and_a_bad_folder_is_told(tmp_path: Path, files: dict[str, bytes]) -> None:
    write_site(files, tmp_path / "new" / "site")
    found = [path for path in (tmp_path / "new" / "site").rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path / "new" / "site")) for path in found} == files.keys()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the site"):
        write_site(files, tmp_path / "file")


@pytest.mark.parametrize("name", ["../../etc/passwd", "A", "a b", "", "é", "x" * 300, "..", "con/"])
def test_names_become_harmless_file_names(name: str) -> None:
    assert set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert 0 < len(slug(name)) < 100
    assert slug(name) != slug(name + " ")
    assert slug("a-task") == "a-task"


def test_the_front_holds_what_nothing_dominates() -> None:
    points = {0: (1.0, 0.5), 1: (2.0, 0.4), 2: (3.0, 0.9), 3: (3.0, 0.8), 4: (9.0, 0.9), 5: (1.0, 0.5)}
    assert pareto_front(points, "max") == [0, 5, 2]
    assert pareto_front(points, "min") == [0, 5, 1]
    assert pareto_front({}, "max") == []


def test_costs_come_from_one_environment(make_result: Callable[..., Result]) -> None:
    latency = MetricInfo(name="latency", direction="min", unit="s", kind="cost")
    rule = Definition(title="T", seed_axes=["run"], metrics=[*METRICS[:1], latency], rank_by="accuracy", reference="a")

    def timed(name: str, cpu: str) -> StoredResult:
        changes = {"timings": {"fit": Timing(wall_s=1.0, cpu_s=1.0)}, "scores": {"accuracy": 0.5, "latency": 2.0}}
        result = make_result(method=name, definition=rule, environment={"cpu": cpu}, parameters=5, **changes)
        return StoredResult(result, Path("/x/attempt-1/result.json"))

    table = table_of([timed("a", "one"), timed("b", "one"), timed("c", "two")])
    costs = {cost.name: cost.values for cost in costs_of(table)}
    for name in ("fit_seconds", "latency"):
        assert [table.rows[i].label for i in costs[name]] == ["a", "b"]
    assert len(costs["parameters"]) == 3


def test_stages_that_runs_share_are_part_of_what_a_row_costs(make_result: Callable[..., Result]) -> None:
    def timed(name: str, fit: float) -> StoredResult:
        timings = {"fit": Timing(wall_s=1.0, cpu_s=fit), "teacher": Timing(wall_s=1.0, cpu_s=5.0, shared=True)}
        return StoredResult(make_result(method=name, timings=timings), Path("/x/attempt-1/result.json"))

    first, *others = costs_of(table_of([timed("a", 1.0), timed("b", 2.0)]))
    assert (first.title, sorted(first.values.values())) == ("fit and shared stages (CPU s)", [6.0, 7.0])
    assert [cost.name for cost in others][:2] == ["fit_seconds", "cached_seconds"]


def test_rows_of_one_label_are_told_apart(make_result: Callable[..., Result]) -> None:
    results = [make_result(config={"lr": lr}) for lr in (0.1, 0.2)] + [make_result(preset="paper")]
    table = table_of([StoredResult(r, Path(f"/x/{i}/attempt-1/result.json")) for i, r in enumerate(results)])
    assert len(set(row_names(table))) == 3


# In a browser. Chromium and its driver are Debian packages; selenium is on PyPI.

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SERVED_BY_FILES = ("file:", "blob:", "data:")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless chromium with a profile of its own."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.implicitly_wait(5)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def site(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_site(files, folder)
    return folder


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Callable[..., Any]]:
    """Open a page at a size and in a colour scheme; afterwards the console must be empty."""

    def go(page: str, width: int = 1280, scheme: str = "light") -> Any:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme_feature]})
        browser.get((site / page).as_uri())
        if page.startswith("task-"):
            wait_until(browser, "return document.documentElement.dataset.ready === 'yes'")
        return browser

    yield go
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hacked") is None


def wait_until(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20).until(lambda b: b.execute_script(condition))


def column(browser: Any, index: int) -> list[str]:
    script = """
        const rows = document.querySelectorAll("table.results tbody tr");
        return [...rows].map(row => row.cells[arguments[0]].dataset.order ?? row.cells[arguments[0]].textContent);
    """
    return list(browser.execute_script(script, index))


def as_sorted(values: list[str], numeric: bool) -> list[str]:
    if numeric:
        return sorted(values, key=lambda text: float(text) if text else -float("inf"))
    return sorted(values, key=str.lower)


def shown_text(element: Any) -> str:
    return " ".join(element.text.split())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_screen_and_load_only_files(visit: Callable[..., Any], width: int, scheme: str) -> None:
    for page in ("index.html", task_page("a-task"), task_page(HOSTILE), method_page("better"), method_page(HOSTILE)):
        browser = visit(page, width, scheme)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, page
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert all(address.startswith(SERVED_BY_FILES) for address in loaded)
        colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(255, 255, 255)") == (scheme == "light")


def test_every_column_sorts(visit: Callable[..., Any]) -> None:
    browser = visit(task_page("a-task"))
    headings = browser.find_elements("css selector", "table.results thead th")[:-1]
    assert len(headings) > 8
    for index, heading in enumerate(headings):
        numeric = "number" in heading.get_attribute("class")
        for expected in ("ascending", "descending"):
            browser.execute_script("arguments[0].querySelector('[role=button]').click()", heading)
            assert heading.get_attribute("aria-sort") == expected
            found = column(browser, index)
            found = found if expected == "ascending" else found[::-1]
            assert [v.lower() for v in found] == [v.lower() for v in as_sorted(found, numeric)], heading.text


def test_a_column_sorts_from_the_keyboard(visit: Callable[..., Any]) -> None:
    browser = visit(task_page("a-task"))
    button = browser.find_element("css selector", "table.results thead th[data-metric=accuracy] [role=button]")
    button.send_keys("\ue007")
    wait_until(browser, "return document.querySelector('th[data-metric=accuracy]').ariaSort === 'ascending'")
    found = column(browser, 4)
    assert found == as_sorted(found, numeric=True)


def test_rows_can_be_filtered(visit: Callable[..., Any]) -> None:
    browser = visit(task_page("a-task"))
    box = browser.find_element("css selector", ".dt-search input")
    box.send_keys("better")
    wait_until(browser, "return document.querySelectorAll('table.results tbody tr').length === 1")
    assert browser.find_element("css selector", "table.results tbody th").text == "better"
    box.clear()
    box.send_keys("nothing has this")
    wait_until(browser, "return document.querySelector('table.results tbody').textContent.includes('No row')")


def marks(browser: Any, layer: str) -> list[str]:
    script = "return [...document.querySelectorAll(`.chart .${arguments[0]}_marks path`)].map(mark => mark.outerHTML)"
    return list(browser.execute_script(script, layer))


def choose(browser: Any, select: str, value: str) -> None:
    options = browser.find_elements("css selector", f"{select} option")
    next(option for option in options if option.get_attribute("value") == value).click()
    wait_until(browser, "return document.querySelector('.charts').ariaBusy === 'false'")


def test_the_charts_show_what_the_reader_chose(visit: Callable[..., Any]) -> None:
    browser = visit(task_page("a-task"))
    before = {layer: marks(browser, layer) for layer in ("means", "seeds", "points", "front")}
    assert {layer: len(found) for layer, found in before.items()} == {"means": 5, "seeds": 14, "points": 4, "front": 1}
    assert HOSTILE[:10] in browser.find_element("css selector", ".chart.interval svg").text
    choose(browser, ".choose-metric", "error_rate")
    assert browser.find_element("css selector", ".metric-title").text == "error rate (m)"
    after = {layer: marks(browser, layer) for layer in before}
    assert all(after[layer] != before[layer] for layer in before)
    found = column(browser, 5)
    assert found == as_sorted(found, numeric=True)
    choose(browser, ".choose-cost", "parameters")
    assert browser.find_element("css selector", ".cost-title").text == "parameters"
    assert len(marks(browser, "points")) == 5


@pytest.mark.parametrize(("layer", "text"), [("seeds", "run "), ("means", HOSTILE.partition("\u2028")[0])])
def test_points_say_what_they_are(visit: Callable[..., Any], layer: str, text: str) -> None:
    from selenium.webdriver import ActionChains

    browser = visit(task_page("a-task"))
    choose(browser, ".choose-metric", HOSTILE)
    told = []
    for point in browser.find_elements("css selector", f".chart .{layer}_marks path")[:5]:
        ActionChains(browser).move_to_element(point).perform()
        wait_until(browser, "return document.querySelector('#vg-tooltip-element.visible') !== null")
        told.append(browser.find_element("css selector", "#vg-tooltip-element").text)
    assert any(text in found for found in told), told
    assert browser.find_elements("css selector", "#vg-tooltip-element script, #vg-tooltip-element img") == []


def test_a_link_unfolds_the_provenance(visit: Callable[..., Any]) -> None:
    browser = visit(task_page("a-task"))
    link = browser.find_element("css selector", "table.results tbody tr a[href^='#table-1-row-']")
    browser.execute_script("arguments[0].click()", link)
    wait_until(browser, "return document.querySelectorAll('details.provenance[open]').length === 1")
    assert browser.find_element("css selector", "details.provenance[open] code").text


def test_a_hostile_name_is_shown_as_text(visit: Callable[..., Any]) -> None:
    shown = " ".join(HOSTILE.split())
    browser = visit(task_page("a-task"))
    assert shown in [
        shown_text(element) for element in browser.find_elements("css selector", "table.results tbody th a")
    ]
    browser.find_element("css selector", ".dt-search input").send_keys("<script>")
    wait_until(browser, "return document.querySelectorAll('table.results tbody tr').length === 1")
    browser = visit(method_page(HOSTILE))
    assert shown_text(browser.find_element("css selector", "h1")) == shown
    assert browser.find_elements("css selector", "main script, main img") == []
