"""Run methods, run one again, judge predictions made elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchsuite.cli._shared import (
    INTERRUPTED,
    PUBLISHED,
    RUNS,
    Debug,
    Json,
    Out,
    Results,
    Wide,
    find_stored,
    print_json,
    read_stored,
    warn,
)
from benchsuite.core.errors import ConfigError, did_you_mean
from benchsuite.core.registry import get_registry

if TYPE_CHECKING:
    from benchsuite.harness.execute import Summary
    from benchsuite.harness.executor import Executor, Options
    from benchsuite.harness.plan import Plan


_MANY_SEEDS = 50  # more than a plan asks for: perhaps one seed was meant


def run(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.toml]", help="File that says what to run, instead of options.")
    ] = None,
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
        typer.Option(
            "--set",
            help="key=value, task.key=value, method.key=value or NAME.key=value; 0.1,0.2 makes a row each.",
        ),
    ] = None,
    seeds: Annotated[
        list[str] | None,
        typer.Option(help="N seeds, a list a,b,c, or AXIS= with either (repeatable)."),
    ] = None,
    split: Annotated[str, typer.Option(help="test, or val for tuning (never on a leaderboard).")] = "test",
    threads: Annotated[int, typer.Option(help="Threads inside one run.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int, typer.Option(help="Runs at the same time (CPUs, for runs that need several).")] = 1,
    gpus: Annotated[str, typer.Option(help="Only these GPUs: 0 or 0,1. Default: all that are visible.")] = "",
    executor: Annotated[str | None, typer.Option(help="local (the default), or ray: on a Ray cluster.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster: auto or HOST:PORT. Default: one of this machine alone.")
    ] = None,
    resubmit: Annotated[
        int | None, typer.Option(help="How often a run is made again whose node ended (ray). Default: 2.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which a run is stopped.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint for the methods named.")] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(help="Stop every training loop after so many steps; the result is marked truncated."),
    ] = None,
    out: Out = RUNS,
    run_all: Annotated[
        bool, typer.Option("--all", help="At the published protocols and seeds; every task, unless --task names some.")
    ] = False,
    artifacts: Annotated[
        list[str] | None, typer.Option(help="What to keep besides: model (the trained model).")
    ] = None,
    force: Annotated[bool, typer.Option(help="Measure again what is already stored.")] = False,
    no_reference: Annotated[bool, typer.Option("--no-reference", help="Leave the task's reference out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run.")] = False,
    wide: Wide = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Run methods on a task; what is already measured is not measured again."""
    from benchsuite.harness.execute import open_executor
    from benchsuite.harness.executor import Options
    from benchsuite.harness.plan import Request, plan
    from benchsuite.harness.settings import parse_assignments, parse_seeds

    if study is not None:
        from benchsuite.harness.study import read_study

        if task or dataset or data_root or method or settings or seeds or run_all:
            raise ConfigError(f"{study} says what to run: leave --task, --method, --dataset, --set, --seeds, --all out")
        asked = read_study(study)
        given = asked.options
        options = Options(
            out=given.out if out == RUNS else out,
            workers=given.workers if workers == 1 else workers,
            timeout=given.timeout if timeout is None else timeout,
            force=force,
        )
        with open_executor(
            executor or asked.executor,
            address=address,
            workers=options.workers,
            gpus=gpus or asked.gpus,
            resubmit=asked.resubmit if resubmit is None else resubmit,
        ) as carrier:
            planned = asked.plan(get_registry(), carrier.machine)
            if dry_run:
                _print_plan(planned, as_json)
                return 0
            print(f"study kept as {asked.keep(options.out)}", file=sys.stderr)
            return _run_plan(planned, options, as_json, wide, carrier)
    if run_all and dataset:
        raise ConfigError("--all is what is published, on each task's own data: leave --dataset out")
    if not run_all and not task:
        names = ", ".join(sorted(get_registry().tasks))
        raise ConfigError(f"nothing to run: give --task NAME (there are: {names}) or --all")
    if split not in ("test", "val"):
        raise ConfigError(f"--split {split!r} is neither test nor val")
    if unknown := set(artifacts or ()) - {"model"}:
        raise ConfigError(f"--artifacts {min(unknown)!r}{did_you_mean(min(unknown), ['model'])}")
    if weights is not None and not weights.is_file():
        raise ConfigError(f"--weights {weights}: there is no such file")
    for text in seeds or ():
        number = text.rpartition("=")[2]
        if number.isdigit() and int(number) >= _MANY_SEEDS:
            print(f"note: --seeds {text} asks for {number} seeds; seed {number} alone is '{text},'", file=sys.stderr)
    request = Request(
        tasks=task or [],
        datasets=dataset or [],
        data_roots=data_root or [],
        methods=method or [],
        preset=preset,
        settings=parse_assignments(settings or []),
        seeds=parse_seeds(seeds or []),
        published=run_all,
        split="val" if split == "val" else "test",
        threads=threads,
        device=device,
        weights=weights,
        keep_model="model" in (artifacts or ()),
        max_steps=max_steps,
        reference=not no_reference,
    )
    options = Options(out=out, workers=workers, timeout=timeout, force=force)
    with open_executor(
        executor or "local",
        address=address,
        workers=workers,
        gpus=gpus,
        resubmit=2 if resubmit is None else resubmit,
    ) as carrier:
        planned = plan(request, get_registry(), carrier.machine)
        if dry_run:
            _print_plan(planned, as_json)
            return 0
        return _run_plan(planned, options, as_json, wide, carrier)


def _print_plan(planned: Plan, as_json: bool) -> None:
    if as_json:
        print_json([item.run.model_dump() | {"fingerprint": item.run.fingerprint} for item in planned.runs])
        return
    for item in planned.runs:
        seeds = ", ".join(f"{axis} {seed}" for axis, seed in item.run.seeds.items())
        print(f"{item.run.fingerprint[:16]}  {item.run.task}  {item.run.data['test'].name}  {item.label}  {seeds}")
    for drop in planned.dropped:
        print(f"left out: {drop.task} {drop.method}: {drop.reason}", file=sys.stderr)


def _run_plan(
    planned: Plan, options: Options, as_json: bool, wide: bool = False, executor: Executor | None = None
) -> int:
    from benchsuite.cli.console import make_reporter
    from benchsuite.harness.execute import execute

    for drop in planned.dropped:
        print(f"left out: {drop.task} {drop.method}: {drop.reason}", file=sys.stderr)
    reporter = make_reporter(planned.runs)
    try:
        summary = execute(planned, options, reporter, executor)
    finally:
        reporter.close()
    if as_json:
        print_json([result.model_dump() for result in summary.results])
    else:
        _print_tables_of(summary, options.out, wide)
    _print_failures(summary)
    if summary.interrupted:
        left = len(planned.runs) - len(summary.results)
        print(f"interrupted with {left} runs to go: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0 if summary.all_well and not any(drop.fault for drop in planned.dropped) else 1


def _print_tables_of(summary: Summary, out: Path, wide: bool) -> None:
    """Print the leaderboard tables that the finished runs belong to, from all that is stored."""
    from benchsuite.cli.console import print_how_to_read, print_leaderboard
    from benchsuite.core.result import FINISHED
    from benchsuite.leaderboard.build import current_digests, fixed_data, presentations
    from benchsuite.leaderboard.tables import build_tables

    stored, problems = read_stored([out])
    warn(problems)
    mine = {result.fingerprint for result in summary.results}
    registry = get_registry()
    tables = build_tables(stored, current_digests(registry), presentations(registry), fixed_data(registry))
    changed = [table for table in tables if any(mine & set(row.fingerprints) for row in table.rows)]
    for table in changed:
        print_leaderboard(table, wide)
    if changed:
        print_how_to_read()
    for result in summary.results:
        if result.status in FINISHED and (result.run.max_steps is not None or result.run.split == "val"):
            why = "truncated" if result.run.max_steps is not None else "judged on the validation split"
            scores = ", ".join(f"{k} {v:.4f}" for k, v in result.scores.items() if v is not None)
            print(f"{result.label} ({why}, not on a leaderboard): {scores}")


def _print_failures(summary: Summary) -> None:
    from benchsuite.core.result import FINISHED
    from benchsuite.harness.execute import seed_text
    from benchsuite.harness.store import LOG_FILE

    failed = [(r, p) for r, p in zip(summary.results, summary.paths, strict=True) if r.status not in FINISHED]
    without_result = [*summary.unstored, *summary.lost]
    if failed or without_result:
        print(f"{len(failed) + len(without_result)} runs did not finish:", file=sys.stderr)
    for result, path in failed:
        message = result.error.message if result.error else result.status
        log = path.parent / LOG_FILE
        print(f"  {result.label} {seed_text(result.run)}: {result.status}: {message} - log: {log}", file=sys.stderr)
    for problem in without_result:
        print(f"  {problem}", file=sys.stderr)


def rerun(
    fingerprint: str,
    data_root: Annotated[list[str] | None, typer.Option(help="Folder of the real data set.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which the run is stopped.")] = None,
    results: Results = None,
    out: Out = RUNS,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Measure a stored run again, exactly as it was asked for, with the present code."""
    from benchsuite.harness.executor import Options
    from benchsuite.harness.plan import replan

    before = find_stored(fingerprint, results or [out, PUBLISHED])
    planned = replan(before.result, data_root or [], get_registry())
    return _run_plan(planned, Options(out=out, timeout=timeout, force=True), as_json)


def score(
    task: Annotated[str, typer.Option(help="The task to judge by.")] = "",
    predictions: Annotated[Path | None, typer.Option(help="Predictions, in the format of the task.")] = None,
    run: Annotated[
        str,
        typer.Option("--run", help="Judge as this stored run was judged (fingerprint); default: its own predictions."),
    ] = "",
    dataset: Annotated[list[str] | None, typer.Option(help="Data set. Default: the task's embedded one.")] = None,
    data_root: Annotated[list[str] | None, typer.Option(help="Folder of the real data set.")] = None,
    draw: Annotated[
        int | None, typer.Option(help="Which sample of generated data: a run's is its seed of the outermost axis.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="task.key=value.")] = None,
    results: Results = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge predictions that were made elsewhere, or again those of a run."""
    from benchsuite.harness.judge import score_of_run, score_predictions
    from benchsuite.harness.settings import parse_assignments

    if run:
        if task or dataset or draw is not None or settings:
            raise ConfigError("--run says task, data, draw and settings: leave the other options out")
        item = find_stored(run, results or [RUNS, PUBLISHED])
        kept = item.result.artifacts
        own = next((kept[name] for name in sorted(kept) if name.partition(".")[0] == "predictions"), None)
        if predictions is None and own is None:
            raise ConfigError(f"run {run} keeps no predictions here: give --predictions FILE")
        file = predictions or item.path.parent / str(own and own.path)
        outcome = score_of_run(get_registry(), item.result.run, file, data_root or [])
    else:
        if not task or predictions is None:
            raise ConfigError("nothing to judge: give --task NAME and --predictions FILE, or --run FINGERPRINT")
        assignments = parse_assignments(settings or [])
        outcome = score_predictions(
            get_registry(), task, predictions, dataset or [], data_root or [], draw or 0, assignments
        )
    if as_json:
        print_json({"scores": outcome.scores, "undefined": outcome.undefined, "counts": outcome.counts})
        return
    for name, value in outcome.scores.items():
        print(f"{name}: {outcome.undefined[name] if value is None else f'{value:.6g}'}")
