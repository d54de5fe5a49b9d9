"""The command line: parses, calls, prints.

Exit codes: 0 all well, 1 a run failed or a check did not hold, 2 a mistake in the command, 130 Ctrl-C.
Heavy imports happen inside the commands, so that listing stays instant.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from benchsuite.core.errors import ConfigError, UserError, did_you_mean
from benchsuite.core.registry import config_class, get_registry, load_object, require

if TYPE_CHECKING:
    from benchsuite.core.result import Result
    from benchsuite.harness.execute import Options, Summary
    from benchsuite.harness.plan import Plan
    from benchsuite.harness.store import StoredResult

app = typer.Typer(
    name="benchsuite",
    help="Run methods on tasks and read honest leaderboards.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
results_app = typer.Typer(help="Look at stored results.", no_args_is_help=True, rich_markup_mode=None)
cache_app = typer.Typer(help="The cache of steps that runs share.", no_args_is_help=True, rich_markup_mode=None)
data_app = typer.Typer(help="The data sets.", no_args_is_help=True, rich_markup_mode=None)
plugin_app = typer.Typer(help="Write and check plugins.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(results_app, name="results")
app.add_typer(plugin_app, name="plugin")
app.add_typer(cache_app, name="cache")
app.add_typer(data_app, name="data")

_RUNS = Path("runs")
_LEADERBOARDS = Path("leaderboards")
_PUBLISHED = _LEADERBOARDS / "results"
_INTERRUPTED = 130

# X | None rather than X | None: typer reads these annotations on Python 3.10 too.
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Results = Annotated[list[Path] | None, typer.Option("--results", help="Folder of result files (repeatable).")]
Out = Annotated[Path, typer.Option("--out", help="Folder for results.")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    signal.signal(signal.SIGTERM, _interrupt)
    if not debug:
        warnings.simplefilter("ignore")  # libraries' deprecations are for developers
    try:
        code = app(arguments, standalone_mode=False) or 0
    except UserError as error:
        if debug:
            raise
        _fail(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _fail("interrupted", _INTERRUPTED)
    except Exception as error:
        message = getattr(error, "format_message", None)  # what typer raises for a wrong command line
        if message is None and type(error).__name__ != "Abort":
            raise
        _fail(" ".join(message().split()) if message else "aborted", 2)
    sys.exit(code)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> NoReturn:
    print(f"benchsuite: {message}", file=sys.stderr)
    sys.exit(code)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))


@app.command("list")
def list_everything(as_json: Json = False, debug: Debug = False) -> None:
    """List tasks, methods and data sets."""
    registry = get_registry()
    tasks = [{"name": t.name, "title": t.title} for _, t in sorted(registry.tasks.items())]
    methods = [
        {"name": m.name, "role": m.role, "tasks": list(m.tasks), "title": m.title, "presets": sorted(m.presets)}
        for _, m in sorted(registry.methods.items())
    ]
    datasets = [
        {"name": d.name, "embedded": d.embedded, "title": d.title} for _, d in sorted(registry.datasets.items())
    ]
    broken = [{"plugin": b.name, "error": b.error} for b in registry.broken]
    if as_json:
        _print_json({"tasks": tasks, "methods": methods, "datasets": datasets, "broken": broken})
        return
    _print_columns("tasks", [(t["name"], t["title"]) for t in tasks])
    _print_columns("methods", [(m["name"], m["role"], ", ".join(m["tasks"]), m["title"]) for m in methods])
    _print_columns(
        "data sets", [(d["name"], "embedded" if d["embedded"] else "needs files", d["title"]) for d in datasets]
    )
    for item in broken:
        print(f"plugin {item['plugin']} failed to load: {item['error']}", file=sys.stderr)


def _print_columns(title: str, rows: Sequence[Sequence[Any]]) -> None:
    print(f"{title}:")
    widths = [max((len(str(row[i])) for row in rows), default=0) for i in range(len(rows[0]) if rows else 0)]
    for row in rows:
        print("  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


@app.command()
def info(name: str, as_json: Json = False, debug: Debug = False) -> None:
    """Describe a task, a method or a data set."""
    registry = get_registry()
    found: dict[str, Any]
    if name in registry.tasks:
        found = _task_info(name)
    elif name in registry.methods:
        found = _method_info(name)
    elif name in registry.datasets:
        found = _dataset_info(name)
    else:
        known = [*registry.tasks, *registry.methods, *registry.datasets]
        raise UserError(f"there is no task, method or data set {name!r}{did_you_mean(name, known)}")
    if as_json:
        _print_json(found)
        return
    for key, value in found.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, text in value.items():
                print(f"  {inner}: {text}")
        elif value not in ("", None, [], ()):
            print(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")


def _task_info(name: str) -> dict[str, Any]:
    from benchsuite.core.config import build_config, config_dict

    registry = get_registry()
    spec = registry.task(name)
    require(f"task {name!r}", spec.requires, spec.install)
    task = load_object(spec.load)
    return {
        "task": name,
        "title": spec.title,
        "version": task.version,
        "default data": task.default_data,
        "data sets": sorted(d.name for d in registry.datasets.values() if d.data_type == task.data_type),
        "seed axes": list(task.seed_axes),
        "published seeds": {axis: task.published_seeds[axis] for axis in task.seed_axes},
        "ranked by": task.ranking.metric,
        "reference": task.reference,
        "methods": [m.name for m in registry.methods_for(name)],
        "metrics": {m.name: f"({m.direction}, {m.kind}) {m.doc}" for m in task.metrics},
        **{
            f"protocol ({preset})": config_dict(build_config(task.Protocol, values.resolve({}), name))
            for preset, values in task.presets.items()
        },
    }


def _method_info(name: str) -> dict[str, Any]:
    spec = get_registry().method(name)
    found = {
        "method": name,
        "title": spec.title,
        "version": spec.version,
        "role": spec.role,
        "tasks": list(spec.tasks),
        "paper": f"{spec.paper.title} ({spec.paper.venue} {spec.paper.year}) {spec.paper.url}" if spec.paper else "",
        "requires": list(spec.requires),
        **{
            f"preset {preset}": dict(values.settings)
            | {f"where {dict(case.where)}": dict(case.settings) for case in values.cases}
            for preset, values in spec.presets.items()
        },
    }
    try:
        require(f"method {name!r}", spec.requires, spec.install)
    except UserError as error:
        return found | {"settings": f"not known here: {error}"}
    from benchsuite.core.config import build_config, config_dict

    config = config_class(spec)
    return found | {
        "settings (embedded)": config_dict(build_config(config, spec.presets["embedded"].resolve({}), name))
    }


def _dataset_info(name: str) -> dict[str, Any]:
    spec = get_registry().dataset(name)
    return {
        "data set": name,
        "title": spec.title,
        "version": spec.version,
        "embedded": spec.embedded,
        "home page": spec.homepage,
        "licence": spec.licence,
        "citation": spec.citation,
        "layout": spec.layout,
        "parameters": dict(spec.parameters),
    }


@app.command()
def run(
    task: Annotated[list[str] | None, typer.Option(help="Task to run.")] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Data set, or train=NAME,test=NAME. Default: the task's embedded one."),
    ] = None,
    data_root: Annotated[
        list[str] | None,
        typer.Option(help="Folder of the real data set, or NAME=FOLDER (repeatable)."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Method (repeatable). Default: every method of the task."),
    ] = None,
    preset: Annotated[str, typer.Option(help="embedded (two cores) or paper (published setting).")] = "embedded",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, task.key=value, method.key=value or NAME.key=value."),
    ] = None,
    seeds: Annotated[
        list[str] | None,
        typer.Option(help="N seeds, a list a,b,c, or AXIS= with either (repeatable)."),
    ] = None,
    split: Annotated[str, typer.Option(help="test, or val for tuning (never on a leaderboard).")] = "test",
    threads: Annotated[int, typer.Option(help="Threads inside one run.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int, typer.Option(help="Runs at the same time.")] = 1,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which a run is stopped.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint for the methods named.")] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(help="Stop every training loop after so many steps; the result is marked truncated."),
    ] = None,
    out: Out = _RUNS,
    run_all: Annotated[bool, typer.Option("--all", help="Every task and method, at the published seeds.")] = False,
    artifacts: Annotated[
        list[str] | None, typer.Option(help="What to keep besides: model (the trained model).")
    ] = None,
    force: Annotated[bool, typer.Option(help="Measure again what is already stored.")] = False,
    no_reference: Annotated[bool, typer.Option("--no-reference", help="Leave the task's reference out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Run methods on a task; what is already measured is not measured again."""
    from benchsuite.harness.execute import Options
    from benchsuite.harness.plan import Request, plan

    if run_all and (task or method or dataset):
        raise ConfigError("--all runs every task and method: leave --task, --method and --dataset out")
    if not run_all and not task:
        names = ", ".join(sorted(get_registry().tasks))
        raise ConfigError(f"nothing to run: give --task NAME (there are: {names}) or --all")
    if split not in ("test", "val"):
        raise ConfigError(f"--split {split!r} is neither test nor val")
    if unknown := set(artifacts or ()) - {"model"}:
        raise ConfigError(f"--artifacts {min(unknown)!r}{did_you_mean(min(unknown), ['model'])}")
    if weights is not None and not weights.is_file():
        raise ConfigError(f"--weights {weights}: there is no such file")
    request = Request(
        tasks=task or [],
        datasets=dataset or [],
        data_roots=data_root or [],
        methods=method or [],
        preset=preset,
        settings=settings or [],
        seeds=seeds or [],
        published_seeds=run_all,
        split="val" if split == "val" else "test",
        threads=threads,
        device=device,
        weights=weights,
        keep_model="model" in (artifacts or ()),
        max_steps=max_steps,
        reference=not no_reference,
    )
    planned = plan(request, get_registry())
    if dry_run:
        _print_plan(planned, as_json)
        return 0
    options = Options(out=out, workers=workers, timeout=timeout, force=force)
    return _run_plan(planned, options, as_json)


def _print_plan(planned: Plan, as_json: bool) -> None:
    if as_json:
        _print_json([item.run.model_dump() | {"fingerprint": item.run.fingerprint} for item in planned.runs])
        return
    for item in planned.runs:
        seeds = ", ".join(f"{axis} {seed}" for axis, seed in item.run.seeds.items())
        print(f"{item.run.fingerprint[:16]}  {item.run.task}  {item.run.data['test'].name}  {item.label}  {seeds}")
    for drop in planned.dropped:
        print(f"left out: {drop.task} {drop.method}: {drop.reason}", file=sys.stderr)


def _run_plan(planned: Plan, options: Options, as_json: bool) -> int:
    from benchsuite.console import make_reporter
    from benchsuite.harness.execute import execute

    for drop in planned.dropped:
        print(f"left out: {drop.task} {drop.method}: {drop.reason}", file=sys.stderr)
    reporter = make_reporter(len(planned.runs))
    try:
        summary = execute(planned, options, reporter)
    finally:
        reporter.close()
    if as_json:
        _print_json([result.model_dump() for result in summary.results])
    else:
        _print_tables_of(summary, options.out)
    _print_failures(summary)
    if summary.interrupted:
        left = len(planned.runs) - len(summary.results)
        print(f"interrupted with {left} runs to go: the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED
    return 0 if summary.all_well and not any(drop.fault for drop in planned.dropped) else 1


def _print_tables_of(summary: Summary, out: Path) -> None:
    """Print the leaderboard tables that the finished runs belong to, from all that is stored."""
    from benchsuite.console import print_leaderboard
    from benchsuite.leaderboard.build import current_digests
    from benchsuite.leaderboard.tables import build_tables

    stored, problems = _read([out])
    _warn(problems)
    mine = {result.fingerprint for result in summary.results}
    for table in build_tables(stored, current_digests(get_registry())):
        if any(mine & set(row.fingerprints) for row in table.rows):
            print_leaderboard(table)
    for result in summary.results:
        if result.run.max_steps is not None or result.run.split == "val":
            why = "truncated" if result.run.max_steps is not None else "judged on the validation split"
            scores = ", ".join(f"{k} {v:.4f}" for k, v in result.scores.items() if v is not None)
            print(f"{result.label} ({why}, not on a leaderboard): {scores}")


def _print_failures(summary: Summary) -> None:
    from benchsuite.core.result import FINISHED
    from benchsuite.harness.execute import seed_text
    from benchsuite.harness.store import LOG_FILE

    failed = [(r, p) for r, p in zip(summary.results, summary.paths, strict=True) if r.status not in FINISHED]
    if failed or summary.unstored:
        print(f"{len(failed) + len(summary.unstored)} runs did not finish:", file=sys.stderr)
    for result, path in failed:
        message = result.error.message if result.error else result.status
        log = path.parent / LOG_FILE
        print(f"  {result.label} {seed_text(result.run)}: {result.status}: {message} - log: {log}", file=sys.stderr)
    for problem in summary.unstored:
        print(f"  {problem}", file=sys.stderr)


def _read(roots: Iterable[Path]) -> tuple[list[StoredResult], list[str]]:
    from benchsuite.harness.store import find_result_files, read_results

    return read_results(find_result_files(roots))


def _warn(problems: Iterable[str]) -> None:
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)


@app.command()
def rerun(
    fingerprint: str,
    data_root: Annotated[list[str] | None, typer.Option(help="Folder of the real data set.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which the run is stopped.")] = None,
    results: Results = None,
    out: Out = _RUNS,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Measure a stored run again, exactly as it was asked for, with the present code."""
    from benchsuite.harness.execute import Options
    from benchsuite.harness.plan import replan

    before = _find(fingerprint, results or [out, _PUBLISHED])
    planned = replan(before.result, data_root or [], get_registry())
    return _run_plan(planned, Options(out=out, timeout=timeout, force=True), as_json)


def _find(fingerprint: str, roots: Iterable[Path]) -> StoredResult:
    """Return the newest attempt of the one run whose fingerprint starts so."""
    stored, _ = _read(roots)
    matches = [item for item in stored if item.result.fingerprint.startswith(fingerprint)]
    names = {item.result.fingerprint for item in matches}
    if not fingerprint or len(names) > 1:
        raise UserError(f"fingerprint {fingerprint!r} fits {len(names) or 'all'} runs: give more of it")
    if not matches:
        raise UserError(f"no stored result has fingerprint {fingerprint!r}: see 'benchsuite results list'")
    return max(matches, key=lambda item: (item.result.started, item.attempt))


@app.command()
def leaderboard(
    results: Results = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the tables.")] = _LEADERBOARDS,
    check: Annotated[bool, typer.Option(help="Change nothing; exit 1 if the tables differ.")] = False,
    merge_from: Annotated[
        list[Path] | None,
        typer.Option("--merge", help="Folder of results from another machine, to be joined in first (repeatable)."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Make the tables from stored results (default: the published ones, else runs/)."""
    from benchsuite.console import print_leaderboard
    from benchsuite.leaderboard.build import build, differences, write
    from benchsuite.leaderboard.render import table_data

    if merge_from:
        _merge(merge_from, results[0] if results else _PUBLISHED)
    roots = _result_roots(results)
    board = build(roots, get_registry())
    _warn(board.problems)
    if check:
        wrong = differences(board, out)
        for name in wrong:
            print(f"{out / name} is not what the results give: run 'benchsuite leaderboard'", file=sys.stderr)
        return 1 if wrong or board.problems else 0
    if not board.tables:
        raise UserError(f"no results in {', '.join(map(str, roots))}: run something first (benchsuite run --task NAME)")
    write(board, out)
    if as_json:
        _print_json([table_data(table) for table in board.tables])
        return 0
    for table in board.tables:
        print_leaderboard(table)
    print(f"written to {out}: {', '.join(sorted(board.files))}")
    return 0


def _merge(folders: Sequence[Path], target: Path) -> None:
    from benchsuite.harness.merge import merge

    for folder in folders:
        if not folder.exists():
            raise UserError(f"--merge {folder}: there is no such folder")
    stored, problems = _read(folders)
    _warn(problems)
    merged = merge(stored, target)
    print(f"merged into {target}: {merged.added} results added, {merged.known} known already", file=sys.stderr)


def _result_roots(results: Sequence[Path] | None) -> list[Path]:
    if results:
        for root in results:
            if not root.exists():
                raise UserError(f"--results {root}: there is no such folder")
        return list(results)
    return [_PUBLISHED] if _PUBLISHED.is_dir() else [_RUNS]


@app.command()
def claims(results: Results = None, as_json: Json = False, debug: Debug = False) -> None:
    """Say which claims of the papers hold, by the stored results."""
    from benchsuite.console import print_table
    from benchsuite.leaderboard.build import build
    from benchsuite.leaderboard.render import effect_text, verdict_data

    board = build(_result_roots(results), get_registry())
    _warn(board.problems)
    if as_json:
        _print_json([verdict_data(verdict) for verdict in board.verdicts])
        return
    rows = [(v.claim.statement, v.verdict, effect_text(v.effect), v.command) for v in board.verdicts]
    print_table("Claims of the papers", ["claim", "verdict", "effect", "run it again"], rows)


@results_app.command("list")
def results_list(results: Results = None, as_json: Json = False, debug: Debug = False) -> None:
    """List stored results."""
    from benchsuite.console import print_table
    from benchsuite.harness.execute import seed_text

    stored, problems = _read(results or [_RUNS])
    _warn(problems)
    if as_json:
        _print_json([_summary_of(item) for item in stored])
        return
    rows = [
        (
            item.result.fingerprint[:16],
            item.attempt,
            item.result.run.task,
            item.result.run.data["test"].name,
            item.result.label,
            seed_text(item.result.run),
            item.result.status,
            item.result.started,
        )
        for item in stored
    ]
    columns = ["fingerprint", "attempt", "task", "data", "method", "seeds", "status", "started"]
    print_table(f"{len(rows)} results", columns, rows)


def _summary_of(item: StoredResult) -> dict[str, Any]:
    result = item.result
    keys = {"run", "fingerprint", "source_digest", "status", "label", "scores", "started"}
    return {"path": str(item.path), "attempt": item.attempt, **result.model_dump(include=keys)}


@results_app.command("show")
def results_show(fingerprint: str, results: Results = None, as_json: Json = False, debug: Debug = False) -> None:
    """Show one result: settings, scores, timings, environment, error."""
    item = _find(fingerprint, results or [_RUNS, _PUBLISHED])
    content = item.result.model_dump(exclude={"tables", "definition"})
    if as_json:
        _print_json(item.result.model_dump())
        return
    print(f"{item.path}")
    traceback = (content.get("error") or {}).pop("traceback", "")
    for key, value in content.items():
        print(f"{key}: {json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value}")
    if traceback:
        print(traceback)


@results_app.command("compare")
def results_compare(
    first: str, second: str, results: Results = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Show where two results differ: settings, code, environment, scores."""
    from benchsuite.console import print_table

    roots = results or [_RUNS, _PUBLISHED]
    one, two = (_comparable(_find(name, roots).result) for name in (first, second))
    rows = [
        {"field": key, "first": one.get(key), "second": two.get(key)}
        for key in sorted(one.keys() | two.keys())
        if one.get(key) != two.get(key)
    ]
    if as_json:
        _print_json(rows)
        return
    print_table(f"{len(rows)} differences", ["field", "first", "second"], [tuple(row.values()) for row in rows])


def _comparable(result: Result) -> dict[str, Any]:
    keys = {"run", "source_digest", "status", "scores", "counts", "parameters", "environment", "peak_memory_mb"}
    flat: dict[str, Any] = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    flatten("", result.model_dump(include=keys))
    return flat


@results_app.command("validate")
def results_validate(
    files: Annotated[list[Path], typer.Argument(help="Result files or folders.")],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Check result files of unknown origin: schema, ranges, known task version and data."""
    from benchsuite.harness.validate import problems_of

    for path in files:
        if not path.exists():
            raise UserError(f"{path}: there is no such file")
    stored, problems = _read(files)
    problems += [f"{item.path}: {text}" for item in stored for text in problems_of(item.result, get_registry())]
    if as_json:
        _print_json({"files": len(stored) + len(problems), "problems": problems})
    else:
        for problem in problems:
            print(problem)
        print(f"{len(stored)} result files read, {len(problems)} problems")
    return 1 if problems else 0


@results_app.command("publish")
def results_publish(
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    results: Results = None,
    to: Annotated[Path, typer.Option(help="Folder of the published results.")] = _PUBLISHED,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Copy complete rows (all published seeds, made by the present code) to the published results."""
    from benchsuite.harness.publish import publish
    from benchsuite.leaderboard.build import current_digests

    registry = get_registry()
    for name in task or []:
        registry.task(name)
    stored, problems = _read(results or [_RUNS])
    _warn(problems)
    stored = [item for item in stored if item.result.run.task in (task or registry.tasks)]
    digest = current_digests(registry)
    written, refused = publish(stored, to, registry, {i.result.fingerprint: digest(i.result) for i in stored})
    if as_json:
        _print_json({"published": [str(p) for p in written], "refused": [vars(item) for item in refused]})
        return 0
    for item in refused:
        print(f"not published: {item.label}: {item.reason}", file=sys.stderr)
    print(f"{len(written)} results published to {to}; now run 'benchsuite leaderboard'")
    return 0 if written else 1


@cache_app.command("info")
def cache_info(as_json: Json = False, debug: Debug = False) -> None:
    """Show where the cache is and what it holds."""
    from benchsuite.harness.cache import Cache, default_cache_root

    cache = Cache(default_cache_root())
    usage = cache.usage()
    if as_json:
        entries = {name: {"entries": count, "bytes": size} for name, (count, size) in usage.items()}
        _print_json({"folder": str(cache.root), "steps": entries})
        return
    print(f"folder: {cache.root}")
    for name, (count, size) in usage.items():
        print(f"  {name}: {count} entries, {size / 1e6:.1f} MB")


@cache_app.command("clear")
def cache_clear(
    name: Annotated[str | None, typer.Argument(help="Only this step.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove cached steps; they are built again when needed."""
    from benchsuite.harness.cache import Cache, default_cache_root

    cache = Cache(default_cache_root())
    if name is not None and name not in cache.usage():
        raise UserError(f"the cache holds no step {name!r}{did_you_mean(name, cache.usage())}")
    count = cache.clear(name)
    if as_json:
        _print_json({"removed": count})
    else:
        print(f"removed {count} entries")


@data_app.command("list")
def data_list(as_json: Json = False, debug: Debug = False) -> None:
    """List the data sets."""
    specs = sorted(get_registry().datasets.values(), key=lambda spec: spec.name)
    if as_json:
        _print_json([_dataset_info(spec.name) for spec in specs])
        return
    rows = [(s.name, "embedded" if s.embedded else "needs files", s.licence, s.title) for s in specs]
    _print_columns("data sets", rows)


@data_app.command("info")
def data_info(name: str, as_json: Json = False, debug: Debug = False) -> None:
    """Describe a data set: where it comes from, its licence, the files expected."""
    get_registry().dataset(name)
    info(name, as_json)


@data_app.command("verify")
def data_verify(
    name: str,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Read a data set and say what was found."""
    from benchsuite.core.dataset import DataSource
    from benchsuite.harness.identity import data_hash

    spec = get_registry().dataset(name)
    require(f"data set {name!r}", spec.requires, spec.install)
    digest = data_hash(DataSource(spec, data_root))
    data = load_object(spec.load)(data_root, 0)
    summary = data.summary() if hasattr(data, "summary") else {}
    if as_json:
        _print_json({"data set": name, "hash": digest, "summary": summary})
        return
    print(f"{name}: readable, hash {digest[:16]}")
    for key, value in summary.items():
        print(f"  {key}: {value}")


@plugin_app.command("new")
def plugin_new(
    name: str,
    task: Annotated[str, typer.Option(help="The task of the method.")],
    folder: Annotated[Path, typer.Option(help="Where to put the new folder.")] = Path(),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a plugin that works as it stands, for any task."""
    from benchsuite.testing.scaffold import write_scaffold

    written = write_scaffold(name, task, folder, get_registry())
    if as_json:
        _print_json({"folder": str(written)})
        return
    print(f"written to {written}; next:")
    print(f"  pip install -e {written}")
    print(f"  benchsuite plugin check {name}")
    print(f"  benchsuite run --task {task} --method {name}")


@plugin_app.command("list")
def plugin_list(as_json: Json = False, debug: Debug = False) -> None:
    """List plugins with what they register, and those that failed to load."""
    registry = get_registry()
    kinds: dict[str, dict[str, Any]] = {
        "tasks": registry.tasks,
        "data sets": registry.datasets,
        "methods": registry.methods,
    }
    plugins: dict[str, dict[str, list[str]]] = {}
    for kind, known in kinds.items():
        for name in sorted(known):
            plugins.setdefault(registry.owners[name], {}).setdefault(kind, []).append(name)
    broken = {item.name: item.error for item in registry.broken}
    if as_json:
        _print_json({"plugins": plugins, "broken": broken})
        return
    for plugin, content in sorted(plugins.items()):
        print(f"{plugin}:")
        for kind, names in content.items():
            print(f"  {kind}: {', '.join(names)}")
    for plugin, error in broken.items():
        print(f"plugin {plugin} failed to load: {error}", file=sys.stderr)


@plugin_app.command("check")
def plugin_check(
    name: Annotated[str, typer.Argument(help="A plugin, a method, or the folder of a plugin.")],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Check that the methods of a plugin obey the contract of the suite and of their tasks."""
    from benchsuite.testing.checks import check_method
    from benchsuite.testing.resolve import check_folder, methods_of

    if Path(name).is_dir() and name not in get_registry().owners.values():
        return check_folder(Path(name), as_json)
    findings = []
    for method in methods_of(name, get_registry()):
        for finding in check_method(method):
            findings.append(finding)
            if not as_json:
                detail = f": {finding.detail}" if finding.detail else ""
                print(f"{finding.verdict:<16}  {finding.method} ({finding.task})  {finding.check}{detail}", flush=True)
    if as_json:
        _print_json([vars(finding) for finding in findings])
    return 1 if any(finding.verdict == "failed" for finding in findings) else 0


@app.command()
def score(
    task: Annotated[str, typer.Option(help="The task to judge by.")],
    predictions: Annotated[Path, typer.Option(help="File of predictions, in the format of the task.")],
    dataset: Annotated[list[str] | None, typer.Option(help="Data set. Default: the task's embedded one.")] = None,
    data_root: Annotated[list[str] | None, typer.Option(help="Folder of the real data set.")] = None,
    draw: Annotated[int, typer.Option(help="Seed of the draw of generated data.")] = 0,
    settings: Annotated[list[str] | None, typer.Option("--set", help="task.key=value.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge predictions that were made elsewhere."""
    from benchsuite.harness.judge import score_predictions

    outcome = score_predictions(get_registry(), task, predictions, dataset or [], data_root or [], draw, settings or [])
    if as_json:
        _print_json({"scores": outcome.scores, "undefined": outcome.undefined, "counts": outcome.counts})
        return
    for name, value in outcome.scores.items():
        print(f"{name}: {outcome.undefined[name] if value is None else f'{value:.6g}'}")


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> int:
    """Check this installation: plugins, libraries, GPU, folders."""
    from benchsuite.harness.doctor import examine

    findings = examine(get_registry(), [_RUNS, _PUBLISHED])
    if as_json:
        _print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok     ' if finding.good else 'PROBLEM'} {finding.what}: {finding.detail}")
    return 0 if all(finding.good for finding in findings) else 1


if __name__ == "__main__":
    main()
