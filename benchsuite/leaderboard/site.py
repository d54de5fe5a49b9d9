"""The leaderboard as a static site: made of files alone, so that it works from a folder without a network.

Whatever comes from a result file or a plugin is escaped by the templates; a method card is Markdown whose HTML
is shown as text; charts and tables get their data as JSON that cannot leave its element.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from benchsuite.core.claim import read_resource
from benchsuite.core.errors import UserError
from benchsuite.core.method import MethodSpec
from benchsuite.core.registry import Registry, require
from benchsuite.core.result import Result
from benchsuite.harness.store import StoredResult, write_atomic
from benchsuite.leaderboard import pages
from benchsuite.leaderboard.build import Leaderboard, reported_of
from benchsuite.leaderboard.tables import Row, Table

if TYPE_CHECKING:
    import jinja2
    from markdown_it import MarkdownIt

_LIBRARIES = ("jinja2", "altair", "vl_convert", "itables", "markdown_it")
_INSTALL = "pip install 'benchsuite[site]'"
_TEMPLATES = ("benchsuite.leaderboard", "templates")
_OWN_FILES = ("style.css", "site.js")
_SHOWN_TIES = 3
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_SIZE_ENDS = 24  # the start, then the header chunk: length, type, width, height
_MAX_PICTURE_BYTES = 2_000_000
_MAX_PICTURE_SIDE = 20_000


@dataclass(frozen=True)
class Picture:
    """An artifact that can be shown: its file in the site, its size in pixels, and its content."""

    file: str
    name: str
    caption: str
    width: int
    height: int
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Sound:
    """An artifact that can be played: its file in the site, and its content."""

    file: str
    name: str
    caption: str
    content: bytes = field(repr=False)


Exhibit = Picture | Sound


def build_site(board: Leaderboard, registry: Registry, stored: Iterable[StoredResult] = ()) -> dict[str, bytes]:
    """Return every file of the site, name to content; the same results give the same bytes.

    Parameters
    ----------
    board
        What the results gave.
    registry
        Knows the titles, cards, papers and licences.
    stored
        The results with the files they came from: pictures and sounds beside those that count are copied into the site.

    Raises
    ------
    MissingDependency
        If a library of the extra ``site`` is not installed.
    """
    require("the site", _LIBRARIES, _INSTALL)
    templates = _environment()
    tasks = sorted({table.task for table in board.tables} | registry.tasks.keys())
    methods = sorted({row.method for table in board.tables for row in table.rows} | registry.methods.keys())
    exhibits = _exhibits(board.tables, stored)
    files = {"index.html": _index(templates, board, registry, tasks, methods)}
    for task in tasks:
        files[pages.task_page(task)] = _task(templates, board, registry, task)
    for method in methods:
        files[pages.method_page(method)] = _method(templates, board, registry, method, exhibits.get(method, []))
    shown = {exhibit.file: exhibit.content for found in exhibits.values() for exhibit in found}
    return files | shown | _assets()


def write_site(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files below ``folder``; files of an earlier site that are not among them stay.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
    except OSError as error:
        raise UserError(f"cannot write the site to {folder} ({error.strerror}): choose another folder") from None


def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader(*_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _index(
    templates: jinja2.Environment, board: Leaderboard, registry: Registry, tasks: Sequence[str], methods: Sequence[str]
) -> bytes:
    used = {name for table in board.tables for name in _data_names(table)}
    claims = [pages.claim_view(verdict) for verdict in board.verdicts]
    page = templates.get_template("index.html").render(
        tasks=[_task_summary(board, registry, task) for task in tasks],
        methods=[_method_summary(registry, method) for method in methods],
        claims=claims,
        tally=pages.tally(claims),
        datasets=[pages.data_view(name, registry) for name in sorted(used | registry.datasets.keys())],
        runs=sum(len(row.results) for table in board.tables for row in table.rows),
        problems=board.problems,
    )
    return page.encode()


def _task_summary(board: Leaderboard, registry: Registry, task: str) -> dict[str, object]:
    tables = [_table_summary(table) for table in board.tables if table.task == task]
    return {"name": task, "title": _task_title(board, registry, task), "page": pages.task_page(task), "tables": tables}


def _table_summary(table: Table) -> dict[str, object]:
    best = [(row.label, pages.method_page(row.method)) for row in table.rows if row.rank == 1]
    return {
        "data": table.data_name,
        "settings": pages.settings_text(table.protocol),
        "rows": len(table.rows),
        "ranked_by": table.ranked_by.name.replace("_", " "),
        "best": best[:_SHOWN_TIES],
        "more": len(best[_SHOWN_TIES:]),
    }


def _method_summary(registry: Registry, method: str) -> dict[str, str]:
    spec = registry.methods.get(method)
    title, role = (spec.title, spec.role) if spec else ("not registered here", "")
    return {"name": method, "title": title, "role": role, "page": pages.method_page(method)}


def _task_title(board: Leaderboard, registry: Registry, task: str) -> str:
    if task in registry.tasks:
        return registry.tasks[task].title
    return next(table.definition.title for table in board.tables if table.task == task)


def _task(templates: jinja2.Environment, board: Leaderboard, registry: Registry, task: str) -> bytes:
    tables = [table for table in board.tables if table.task == task]
    names = sorted({name for table in tables for name in _data_names(table)})
    reported, _ = reported_of(sorted(registry.methods.values(), key=lambda m: m.name))
    page = templates.get_template("task.html").render(
        name=task,
        title=_task_title(board, registry, task),
        tables=[pages.table_view(table, f"table-{i}") for i, table in enumerate(tables, start=1)],
        claims=[pages.claim_view(verdict) for verdict in board.verdicts if verdict.claim.task == task],
        datasets=[pages.data_view(name, registry) for name in names],
        reported=pages.reported_table(number for number in reported if number.task == task),
    )
    return page.encode()


def _method(
    templates: jinja2.Environment, board: Leaderboard, registry: Registry, method: str, exhibits: Sequence[Exhibit]
) -> bytes:
    spec = registry.methods.get(method)
    names = {
        name for table in board.tables if any(r.method == method for r in table.rows) for name in _data_names(table)
    }
    page = templates.get_template("method.html").render(
        name=method,
        spec=spec,
        paper_link=pages.web_link(spec.paper.url) if spec and spec.paper else "",
        tasks=[(task, pages.task_page(task)) for task in (spec.tasks if spec else ()) if task in registry.tasks],
        standings=pages.standings(method, board.tables),
        claims=[pages.claim_view(verdict) for verdict in board.verdicts if verdict.claim.method == method],
        presets=pages.preset_views(spec) if spec else [],
        datasets=[pages.data_view(name, registry) for name in sorted(names)],
        reported=pages.reported_table(reported_of([spec])[0] if spec else []),
        pictures=[exhibit for exhibit in exhibits if isinstance(exhibit, Picture)],
        sounds=[exhibit for exhibit in exhibits if isinstance(exhibit, Sound)],
        **_card(spec),
    )
    return page.encode()


def _card(spec: MethodSpec | None) -> dict[str, str]:
    """Return a method's card as HTML that holds no markup but what Markdown makes, or why there is none."""
    if spec is None or not spec.card:
        return {"card": "", "card_problem": ""}
    try:
        text = read_resource(spec.card).decode()
    except UserError as error:
        return {"card": "", "card_problem": str(error)}
    except UnicodeDecodeError as error:
        return {"card": "", "card_problem": f"{spec.card}: not a text in UTF-8 ({error.reason})"}
    return {"card": str(_markdown().render(text)), "card_problem": ""}


def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

    def shift_heading(tokens: Sequence[Token]) -> None:
        for token in tokens:
            if token.type in ("heading_open", "heading_close"):
                token.tag = f"h{min(6, int(token.tag[1]) + 2)}"

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.core.ruler.push("shift_heading", lambda state: shift_heading(state.tokens))
    parser.validateLink = lambda url: bool(pages.web_link(url))  # type: ignore[method-assign]
    return parser


def _data_names(table: Table) -> list[str]:
    return [reference["name"] for reference in table.data.values()]


def _exhibits(tables: Sequence[Table], stored: Iterable[StoredResult]) -> dict[str, list[Exhibit]]:
    """Return the pictures and sounds beside the results that count, by method."""
    folders = {_attempt_key(item.result): item.path.parent for item in stored}
    found: dict[str, list[Exhibit]] = {}
    for table in tables:
        for row in table.rows:
            found.setdefault(row.method, []).extend(_exhibits_of(table, row, folders))
    return found


def _attempt_key(result: Result) -> tuple[str, str, str]:
    return (result.fingerprint, result.source_digest, result.started)


def _exhibits_of(table: Table, row: Row, folders: Mapping[tuple[str, str, str], Path]) -> Iterable[Exhibit]:
    for result in row.results:
        folder = folders.get(_attempt_key(result))
        for name, artifact in sorted(result.artifacts.items()):
            content = _read_exhibit(folder, artifact.path, artifact.sha256) if folder else None
            if content is None:
                continue
            seeds = ", ".join(f"{axis} {seed}" for axis, seed in result.run.seeds.items())
            caption = f"{row.label} on {table.task}, {table.data_name}, {seeds}"
            if artifact.path.endswith(".wav"):
                yield Sound(f"sounds/{artifact.sha256}.wav", name, caption, content)
                continue
            width, height = struct.unpack(">II", content[16:_PNG_SIZE_ENDS])
            yield Picture(f"pictures/{artifact.sha256}.png", name, caption, width, height, content)


def _read_exhibit(folder: Path, path: str, digest: str) -> bytes | None:
    """Return the content of a PNG or WAV file inside a result's folder if it is the one that the result names."""
    file = (folder / path).resolve()
    is_kind = _KINDS.get(file.suffix)
    if (
        is_kind is None
        or not path.endswith(file.suffix)
        or not file.is_relative_to(folder.resolve())
        or not file.is_file()
    ):
        return None
    if file.stat().st_size > _MAX_PICTURE_BYTES:
        return None
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest or not is_kind(content):
        return None
    return content


def _is_png(content: bytes) -> bool:
    if not content.startswith(_PNG_START) or len(content) < _PNG_SIZE_ENDS or content[12:16] != b"IHDR":
        return False
    sides = struct.unpack(">II", content[16:_PNG_SIZE_ENDS])
    return all(0 < side <= _MAX_PICTURE_SIDE for side in sides)


def _is_wav(content: bytes) -> bool:
    return content.startswith(b"RIFF") and content[8:12] == b"WAVE"


_KINDS = {".png": _is_png, ".wav": _is_wav}


def _assets() -> dict[str, bytes]:
    """Return the files that all pages share: our own, and the bundles that altair and itables ship."""
    import altair
    import itables
    import vl_convert

    package, folder = _TEMPLATES
    own = {f"assets/{n}": resources.files(package).joinpath(folder, n).read_bytes() for n in _OWN_FILES}
    html = resources.files(itables).joinpath("html")
    grammar = ".".join(altair.SCHEMA_VERSION.split(".")[:2])
    charts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=grammar)
    bundles = {
        "assets/charts.js": f"(() => {{{charts}\n}})();\n".encode(),
        "assets/tables.js": _module_script("tablesModule", html.joinpath("dt_bundle.js").read_text("utf-8")),
        "assets/tables.css": html.joinpath("dt_bundle.css").read_bytes(),
    }
    return own | bundles


def _module_script(name: str, source: str) -> bytes:
    """Return a classic script that offers an ES module as a promise: a page of a folder may not import one itself."""
    text = json.dumps(source)
    return f'window.{name} = import(URL.createObjectURL(new Blob([{text}], {{ type: "text/javascript" }})));\n'.encode()
