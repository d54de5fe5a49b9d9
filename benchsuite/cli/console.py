"""What the command line shows while it works and when it is done."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from benchsuite.core.result import Result
    from benchsuite.harness.plan import PlannedRun
    from benchsuite.leaderboard.tables import Table

_PLAIN_WIDTH = 220
_SHORT_TABLE_WIDTH = 100
_NARROWEST = 9  # columns of numbers and roles in a short table, where a word is no longer
_FORMS = ((24, 2), (18, 2), (14, 2), (14, 1))  # longest name of a method, blanks between columns: the widest first
_WORDS = ("method", "preset", "role")  # all other columns hold numbers


def console(stderr: bool = False, at_most: int | None = None) -> Console:
    """Return a console: coloured on a terminal, plain and wide elsewhere; ``at_most`` so many columns."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    if at_most is not None:
        width = min(width or Console(file=stream).width, at_most)
    return Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty())


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Sequence[int] = (),
    unbroken: Sequence[int] = (),
    at_most: int | None = None,
    gap: int = 2,
) -> None:
    """Print a table; ``right`` lists the columns that hold numbers, ``unbroken`` those that stay on one line."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(
        title=Text(title), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, gap - 1, 0, 0)
    )
    for index, name in enumerate(columns):
        justify: Literal["left", "right"] = "right" if index in right else "left"
        table.add_column(Text(name), justify=justify, overflow="fold", no_wrap=index in unbroken)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console(at_most=at_most).print(table)


def print_leaderboard(table: Table, wide: bool = False) -> None:
    """Print one leaderboard table, short or whole, with what it does not rank, and why."""
    from benchsuite.leaderboard.cells import cells, footnotes, header, ranking_text, settings_text

    settings = settings_text(table)
    title = f"{table.definition.title}: {table.heading}" + (f" ({settings})" if settings else "")
    notes = [f"{ranking_text(table)}.", *footnotes(table)]
    if wide:
        titles = header(table)
        numbers = [i for i, name in enumerate(titles) if name not in _WORDS]
        print_table(title, titles, [cells(table, row) for row in table.rows], right=numbers, unbroken=[1])
    else:
        short = _fitted(table, console().width if sys.stdout.isatty() else _SHORT_TABLE_WIDTH)
        numbers = [i for i, name in enumerate(short.titles) if name not in _WORDS]
        unbroken = range(len(short.titles)) if short.fits else ()
        print_table(title, short.titles, short.rows, numbers, unbroken, short.width, short.gap)
        if short.left_out:
            notes.insert(1, f"- Left out for want of width, shown by --wide: {', '.join(short.left_out)}.")
    out = console(at_most=None if wide else _SHORT_TABLE_WIDTH)
    for text in notes:
        out.print(text, markup=False, soft_wrap=False)


@dataclass(frozen=True)
class _Short:
    """A short table as it fits into a width: texts with their lines, and the titles that found no room."""

    titles: list[str]
    rows: list[list[str]]
    left_out: list[str]
    gap: int
    width: int

    @property
    def fits(self) -> bool:
        columns = zip(self.titles, *self.rows, strict=True)
        widths = [max(len(line) for text in column for line in text.split("\n")) for column in columns]
        return sum(widths) + self.gap * (len(widths) - 1) + 2 <= self.width


def _fitted(table: Table, width: int) -> _Short:
    """Return the short table in the widest form that fits: first names are broken, then columns leave.

    No number is cut. Where even rank, method, ranking metric and difference find no room, their cells are folded.
    """
    from benchsuite.leaderboard.cells import broken, dispensable_columns, short_cells, short_header

    titles, rows = short_header(table), [short_cells(table, row) for row in table.rows]
    leaving = dispensable_columns(table)
    for count in range(len(leaving) + 1):
        left_out = sorted(leaving[:count])
        kept = [place for place in range(len(titles)) if place not in left_out]
        for name, gap in _FORMS:
            breaks = {"method": name, "role": _NARROWEST}
            short = _Short(
                titles=[broken(titles[i], _NARROWEST) for i in kept],
                rows=[[broken(row[i], breaks.get(titles[i], len(row[i]))) for i in kept] for row in rows],
                left_out=[titles[i] for i in left_out],
                gap=gap,
                width=width,
            )
            if short.fits:
                return short
    return short


def print_how_to_read() -> None:
    """Print what holds for all tables, once."""
    from benchsuite.leaderboard.cells import HOW_TO_READ

    for text in (*HOW_TO_READ, "All metrics and costs: --wide."):
        console(at_most=_SHORT_TABLE_WIDTH).print(text, markup=False, soft_wrap=False)


def duration(seconds: float) -> str:
    """Return seconds as a short text: ``12 s``, ``3 min 20 s``, ``1 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"


class TimeLeft:
    """How long a sweep will still take, judged run by run by what the like of it took.

    A run counts as long as the mean of finished runs of its method on its task and data, else of its task, else of all;
    runs stored by an earlier sweep are known too. Runs side by side are seen in what was done per second so far, what
    runs in flight have behind them included.
    """

    def __init__(self, runs: Iterable[PlannedRun], clock: Callable[[], float] = time.monotonic) -> None:
        self._waiting = Counter(_kind(run) for run in runs)
        self._seconds: dict[tuple[str, ...], list[float]] = {}
        self._in_flight: dict[int, tuple[tuple[str, ...], float]] = {}
        self._clock = clock
        self._begun: float | None = None
        self._measured = 0.0
        self._known: tuple[float, float] | None = None

    def started(self, run: PlannedRun) -> None:
        """Take note of a run that begins."""
        now = self._clock()
        self._begun = now if self._begun is None else self._begun
        self._in_flight[id(run)] = _kind(run), now

    def done(self, run: PlannedRun, result: Result | None, stored_before: bool) -> None:
        """Take note of a run that ended, with or without a result."""
        kind = _kind(run)
        self._in_flight.pop(id(run), None)
        self._waiting[kind] -= 1
        if result is not None:
            for length in range(len(kind) + 1):
                self._seconds.setdefault(kind[:length], []).append(result.wall_s)
            self._measured += 0.0 if stored_before else result.wall_s
        self._known = self._reckon()

    def seconds(self) -> float | None:
        """Return the seconds left; None before anything was measured."""
        if self._known is None:
            return None
        left, at = self._known
        return max(0.0, left - (self._clock() - at))

    def _reckon(self) -> tuple[float, float] | None:
        now = self._clock()
        if not self._measured or self._begun is None:
            return None
        work = sum(count * self._expected(kind) for kind, count in self._waiting.items())
        behind = [(kind, now - start) for kind, start in self._in_flight.values()]
        work -= sum(min(seconds, self._expected(kind)) for kind, seconds in behind)
        busy = self._measured + sum(seconds for _, seconds in behind)
        return work * (now - self._begun) / busy, now

    def _expected(self, kind: tuple[str, ...]) -> float:
        known = next(self._seconds[kind[:n]] for n in range(len(kind), -1, -1) if kind[:n] in self._seconds)
        return sum(known) / len(known)


def _kind(run: PlannedRun) -> tuple[str, ...]:
    """Return what runs of like length share, the widest first: task, data, row."""
    return (run.run.task, run.run.data["test"].name, f"{run.label} {run.run.preset}")


class PlainReporter:
    """One line a run on standard error: for CI and pipes."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self.total = len(runs)
        self.count = 0
        self.time_left = TimeLeft(runs)

    def started(self, run: PlannedRun) -> None:
        """Only look at the clock: the line comes when the run ends."""
        self.time_left.started(run)

    def progress(self, run: PlannedRun, done: int, total: int, description: str) -> None:
        """Say nothing."""

    def finished(self, run: PlannedRun, result: Result, stored_before: bool) -> None:
        """Print how the run ended."""
        self.count += 1
        self.time_left.done(run, result, stored_before)
        if stored_before:
            self._line(f"{_name(run)}: stored before ({result.status})")
            return
        how = result.status if result.error is None else f"{result.status}: {result.error.message}"
        left = self.time_left.seconds() if self.count < self.total else None
        rest = f", about {duration(left)} left" if left is not None else ""
        self._line(f"{_name(run)}: {how} ({duration(result.wall_s)}{rest})")

    def unstored(self, run: PlannedRun, problem: str) -> None:
        """Print what went wrong."""
        self.count += 1
        self.time_left.done(run, None, stored_before=False)
        self._line(problem)

    def note(self, text: str) -> None:
        """Print a remark."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def _line(self, text: str) -> None:
        print(f"[{self.count}/{self.total}] {text}", file=sys.stderr, flush=True)


class BarReporter(PlainReporter):
    """A progress bar for the whole sweep and one for each run in flight, on a terminal."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        super().__init__(runs)
        from rich import progress
        from rich.text import Text

        time_left = self.time_left

        class Left(progress.ProgressColumn):
            """The sweep's own estimate for the sweep, one by steps for a run."""

            by_steps = progress.TimeRemainingColumn()

            def render(self, task: progress.Task) -> Text:
                if not task.fields.get("sweep"):
                    return self.by_steps.render(task)
                seconds = time_left.seconds()
                return Text("" if seconds is None else f"about {duration(seconds)} left")

        columns: list[Any] = [progress.TextColumn("{task.description}", markup=False), progress.BarColumn()]
        columns += [progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), Left()]
        self._bars = progress.Progress(*columns, console=console(stderr=True), transient=True)
        self._all = self._bars.add_task("runs", total=self.total, sweep=True)
        self._tasks: dict[int, Any] = {}
        self._bars.start()

    def started(self, run: PlannedRun) -> None:
        """Open a bar for the run."""
        super().started(run)
        self._tasks[id(run)] = self._bars.add_task(_name(run), total=None)

    def progress(self, run: PlannedRun, done: int, total: int, description: str) -> None:
        """Move the run's bar."""
        if id(run) in self._tasks:
            text = f"{_name(run)}: {description}"
            self._bars.update(self._tasks[id(run)], completed=done, total=total, description=text)

    def close(self) -> None:
        """Remove the bars."""
        self._bars.stop()

    def _line(self, text: str) -> None:
        self._bars.update(self._all, completed=self.count)
        self._bars.console.print(f"[{self.count}/{self.total}] {text}", markup=False)

    def finished(self, run: PlannedRun, result: Result, stored_before: bool) -> None:
        """Close the run's bar and print how it ended."""
        if id(run) in self._tasks:
            self._bars.remove_task(self._tasks.pop(id(run)))
        super().finished(run, result, stored_before)

    def unstored(self, run: PlannedRun, problem: str) -> None:
        """Close the run's bar and print what went wrong."""
        if id(run) in self._tasks:
            self._bars.remove_task(self._tasks.pop(id(run)))
        super().unstored(run, problem)


def make_reporter(runs: Sequence[PlannedRun]) -> PlainReporter:
    """Return bars on a terminal, plain lines elsewhere."""
    return BarReporter(runs) if sys.stderr.isatty() else PlainReporter(runs)


def _name(run: PlannedRun) -> str:
    seeds = ", ".join(f"{axis} {value}" for axis, value in run.run.seeds.items())
    return f"{run.run.task} {run.label} {seeds}"
