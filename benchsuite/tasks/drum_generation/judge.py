"""What was played against what people played: scores and tables; files of grooves made elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.core import Outcome
from benchsuite.core.errors import DataError, InvalidPrediction, did_you_mean
from benchsuite.datasets.drums.drumroll import (
    BAR_LINES,
    BARS,
    END,
    FAMILIES,
    LINE,
    PROMPT_BARS,
    SEPARATOR,
    Record,
    bars_of,
    played_lines,
)
from benchsuite.datasets.drums.midi import read_midi
from benchsuite.metrics import drum_grooves as grooves
from benchsuite.metrics.drum_grooves import Bar

__all__ = ["Human", "Played", "check_played", "distance_floor", "judge", "read", "write"]

_TO_PLAY = BARS - PROMPT_BARS
_HALVINGS = 100
_LONGEST = 100_000


@dataclass(frozen=True)
class Human:
    """What people played.

    Attributes
    ----------
    records
        Of the recordings that are judged against.
    whole
        Their 16 bars of lines before silence at the beginning was stripped: what the official statistics are about.
    training_bars
        Every bar of the training recordings that sounds, and how often.
    """

    records: Sequence[Record]
    whole: Sequence[Sequence[str]]
    training_bars: Mapping[Bar, int]


@dataclass(frozen=True)
class Played:
    """A continuation of one record's prompt.

    Attributes
    ----------
    name
        Of the record.
    prompt, completion
        Texts; without separators if they come from files that have none.
    marked
        Whether separators and ``END`` would stand in the text.
    """

    name: str
    prompt: str
    completion: str
    marked: bool = True

    @property
    def bars(self) -> list[Bar]:
        """Return prompt and continuation in bars."""
        return bars_of(played_lines(self.prompt + self.completion))

    @property
    def new_lines(self) -> list[str]:
        """Return the lines of the continuation, at most fourteen bars of them."""
        return played_lines(self.completion)[: _TO_PLAY * BAR_LINES]


@dataclass(frozen=True)
class Summary:
    """Statistics of one drummer; None where undefined."""

    mean_stability: float | None
    cluster_gap: float | None
    cluster_spread: float | None
    zero_stability: float | None
    identical_neighbours: float | None
    unique_bars: float | None
    back_beat: float | None
    tom_bars: float | None
    fills: float | None
    onset_density: float | None
    sounding_bars: float | None
    groove_consistency: float | None
    in_pattern_duple: float | None
    in_pattern_triple: float | None
    pattern_consistency: float | None


def active_stability(bars: Sequence[Bar]) -> list[int]:
    """Return the stability of the inner bars behind the prompt that sound.

    A silent bar beside another would count as perfect, and the prompt's own second bar as played.
    """
    inner = list(zip(grooves.stability(bars), bars[1:-1], strict=False))
    return [value for value, bar in inner[PROMPT_BARS - 1 :] if not grooves.is_silent(bar)]


def summary(performances: Sequence[Sequence[Bar]], *, active: bool) -> Summary:
    """Return the statistics of the performances (bars each).

    ``active``: stability of bars behind the prompt that sound, and the best clusters; else all bars, and the clusters
    of the official code.
    """
    each = [active_stability(bars) if active else grooves.stability(bars) for bars in performances]
    pooled = [value for values in each for value in values]
    clusters = [found for found in map(grooves.two_clusters if active else grooves.official_clusters, each) if found]
    sounding = [bar for bars in performances for bar in bars if not grooves.is_silent(bar)]
    lines = [line for bars in performances for bar in bars for line in bar]
    filled = [
        fill
        for bars in performances
        for fill, bar in zip(grooves.fills(bars), bars, strict=True)
        if not grooves.is_silent(bar)
    ]
    neighbours = [grooves.identical_neighbours(bars) for bars in performances]
    equal, pairs = (sum(found[place] for found in neighbours) for place in (0, 1))
    return Summary(
        mean_stability=_mean(pooled),
        cluster_gap=_mean([found[0] for found in clusters]),
        cluster_spread=_mean([found[1] for found in clusters]),
        zero_stability=_mean([value == 0 for value in pooled]),
        identical_neighbours=equal / pairs if pairs else None,
        unique_bars=_mean(map(grooves.unique_ratio, performances)),
        back_beat=_mean(map(grooves.has_back_beat, sounding)),
        tom_bars=_mean(map(grooves.has_tom, sounding)),
        fills=_mean(filled),
        onset_density=grooves.onset_density(lines),
        sounding_bars=len(sounding) / len(performances) if performances else None,
        groove_consistency=_mean(map(grooves.groove_consistency, performances)),
        in_pattern_duple=grooves.drum_in_pattern_rate(lines, "duple"),
        in_pattern_triple=grooves.drum_in_pattern_rate(lines, "triple"),
        pattern_consistency=grooves.drum_pattern_consistency(lines),
    )


def _mean(values: Any) -> float | None:
    """Return the mean of what is defined."""
    defined = [float(value) for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def judge(played: Sequence[Played], human: Human, bits: Sequence[float] | None = None) -> Outcome:
    """Return scores, counts and tables of continuations of every record's prompt, in the order of the records."""
    theirs = [bars_of(record.lines) for record in human.records]
    ours = [groove.bars for groove in played]
    us, them = summary(ours, active=True), summary(theirs, active=True)
    official_us = summary(ours, active=False)
    official_them = summary([bars_of(lines) for lines in human.whole], active=False)
    pools = {
        "stability": (_pooled(ours, True), _pooled(theirs, True)),
        "hits per bar": (_each_bar(ours, _hits), _each_bar(theirs, _hits)),
        "families per bar": (_each_bar(ours, _families), _each_bar(theirs, _families)),
    }
    official = (_pooled(ours, False), _pooled([bars_of(lines) for lines in human.whole], False))
    scores: dict[str, float | None] = {
        "stability_w1": grooves.wasserstein(*pools["stability"]),
        "stability_w1_official": grooves.wasserstein(*official),
        "stability_w1_floor": distance_floor(theirs),
        "bits_per_character": _bits_per_character(bits, human.records),
        "new_bar_rate": _new_bar_rate(played, human),
        **_validity(played),
        **_copying(played, human),
        "mean_stability_difference": _apart(us.mean_stability, them.mean_stability),
        "cluster_gap_difference": _apart(us.cluster_gap, them.cluster_gap),
        "cluster_spread_difference": _apart(us.cluster_spread, them.cluster_spread),
        "identical_neighbours_difference": _apart(us.identical_neighbours, them.identical_neighbours),
        "unique_bars_difference": _apart(us.unique_bars, them.unique_bars),
        "hit_rate_l1": _hit_rate_distance(ours, theirs),
        "onset_density_difference": _apart(us.onset_density, them.onset_density),
        "back_beat_difference": _apart(us.back_beat, them.back_beat),
        "fill_difference": _apart(us.fills, them.fills),
        "groove_consistency_difference": _apart(us.groove_consistency, them.groove_consistency),
        "pattern_consistency": us.pattern_consistency,
        "hits_per_bar_overlap": grooves.overlap(*pools["hits per bar"]),
        "families_per_bar_overlap": grooves.overlap(*pools["families per bar"]),
        "stability_overlap": grooves.overlap(*pools["stability"]),
    }
    undefined = {name: _REASONS.get(name, "no bar that it could be said of") for name, v in scores.items() if v is None}
    counts = {
        "grooves": len(played),
        "bars_played": sum(len(bars_of(groove.new_lines)) for groove in played),
        "characters": sum(len(record.completion) for record in human.records),
    }
    tables = {
        "grooves": _groove_rows(played, human, bits),
        "statistics": [
            {
                "statistic": name,
                "played": getattr(us, name),
                "human": getattr(them, name),
                "played_official": getattr(official_us, name),
                "human_official": getattr(official_them, name),
            }
            for name in Summary.__annotations__
        ],
        "families": _family_rows(ours, theirs),
        "distributions": [
            {"of": name, "overlap": grooves.overlap(*pair), "kullback_leibler_bits": grooves.divergence(*pair)}
            for name, pair in pools.items()
        ],
        "curve": _curve(ours, [bars_of(lines) for lines in human.whole]),
    }
    return Outcome(scores, undefined, counts, tables)


_REASONS = {
    "bits_per_character": "it has no probabilities",
    "separator_validity": "no separator was written",
    "end_rate": "files of notes have no END",
    "stability_w1_floor": "fewer than two human grooves of three bars",
}


def _pooled(performances: Sequence[Sequence[Bar]], active: bool) -> list[int]:
    measure = active_stability if active else grooves.stability
    return [value for bars in performances for value in measure(bars)]


def _hits(bar: Bar) -> int:
    return int(grooves.hits_of(bar).sum())


def _families(bar: Bar) -> int:
    return int(grooves.hits_of(bar).any(axis=0).sum())


def _each_bar(performances: Sequence[Sequence[Bar]], measure: Any) -> list[int]:
    """Return a whole number for every bar that sounds."""
    return [measure(bar) for bars in performances for bar in bars if not grooves.is_silent(bar)]


def _apart(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else abs(ours - theirs)


def distance_floor(theirs: Sequence[Sequence[Bar]]) -> float | None:
    """Return the distance between halves of what people played: the mean over 100 fixed draws of halves."""
    each = [values for values in map(active_stability, theirs) if values]
    if len(each) < 2:
        return None
    rng = np.random.default_rng(0)
    found = []
    for _ in range(_HALVINGS):
        order = rng.permutation(len(each))
        halves = order[: len(each) // 2], order[len(each) // 2 :]
        first, second = ([value for index in half for value in each[index]] for half in halves)
        found.append(grooves.wasserstein(first, second))
    return _mean(found)


def _bits_per_character(bits: Sequence[float] | None, records: Sequence[Record]) -> float | None:
    return None if bits is None else sum(bits) / sum(len(record.completion) for record in records)


def _new_bar_rate(played: Sequence[Played], human: Human) -> float | None:
    """Return how many bars that sound, are whole and valid, and were never heard, come on fourteen asked for.

    Heard is what stands in the training recordings, in the prompt, or earlier in the same continuation.
    """
    if not played:
        return None
    new = 0
    for groove in played:
        bars = groove.bars
        heard = set(bars[:PROMPT_BARS])
        for bar in bars[PROMPT_BARS:]:
            whole = len(bar) == BAR_LINES and all(LINE.fullmatch(line) for line in bar)
            new += whole and not grooves.is_silent(bar) and bar not in heard and bar not in human.training_bars
            heard.add(bar)
    return new / (_TO_PLAY * len(played))


def _validity(played: Sequence[Played]) -> dict[str, float | None]:
    lines = [line for groove in played for line in groove.new_lines]
    right = written = 0
    for groove in played:
        since = 0
        for line in groove.completion.partition(END)[0].splitlines():
            if line == SEPARATOR:
                right += since == BAR_LINES
                written += 1
                since = 0
            else:
                since += 1
    whole = [min(1.0, len(groove.new_lines) // BAR_LINES / _TO_PLAY) for groove in played]
    marked = [groove for groove in played if groove.marked]
    return {
        "line_validity": sum(LINE.fullmatch(line) is not None for line in lines) / len(lines) if lines else None,
        "separator_validity": right / written if written else None,
        "completeness": _mean(whole),
        "end_rate": _mean([END in groove.completion for groove in marked]),
    }


def _copying(played: Sequence[Played], human: Human) -> dict[str, float | None]:
    """Return the shares of played bars that stand verbatim in training and in test recordings."""
    new = [bar for groove in played for bar in bars_of(groove.new_lines) if not grooves.is_silent(bar)]
    test = {bar for record in human.records for bar in bars_of(record.lines)}
    return {
        "training_copy_rate": _mean([bar in human.training_bars for bar in new]),
        "test_copy_rate": _mean([bar in test for bar in new]),
    }


def _hit_rate_distance(ours: Sequence[Sequence[Bar]], theirs: Sequence[Sequence[Bar]]) -> float | None:
    a, b = (grooves.hit_rates(line for bars in all_bars for bar in bars for line in bar) for all_bars in (ours, theirs))
    return None if a is None or b is None else float(np.abs(a - b).sum())


def _family_rows(ours: Sequence[Sequence[Bar]], theirs: Sequence[Sequence[Bar]]) -> list[dict[str, Any]]:
    a, b = (grooves.hit_rates(line for bars in all_bars for bar in bars for line in bar) for all_bars in (ours, theirs))
    return [
        {
            "family": family,
            "hit_rate_played": None if a is None else float(a[column]),
            "hit_rate_human": None if b is None else float(b[column]),
        }
        for column, family in enumerate(FAMILIES)
    ]


def _groove_rows(played: Sequence[Played], human: Human, bits: Sequence[float] | None) -> list[dict[str, Any]]:
    test = Counter(bar for record in human.records for bar in bars_of(record.lines))
    rows = []
    for index, (groove, record) in enumerate(zip(played, human.records, strict=True)):
        new = [bar for bar in bars_of(groove.new_lines) if not grooves.is_silent(bar)]
        rows.append(
            {
                "groove": record.name,
                "bars": len(bars_of(groove.new_lines)),
                "sounding_bars": len(new),
                "mean_stability": _mean(active_stability(groove.bars)),
                "mean_stability_human": _mean(active_stability(bars_of(record.lines))),
                "occurrences_in_training": sum(human.training_bars.get(bar, 0) for bar in new),
                "occurrences_in_test": sum(test[bar] for bar in new),
                "bits": None if bits is None else bits[index],
                "characters": len(record.completion),
            }
        )
    return rows


def _curve(ours: Sequence[Sequence[Bar]], whole: Sequence[Sequence[Bar]]) -> list[dict[str, Any]]:
    """Return mean stability by bar, the official way (2 to 15, human recordings unstripped)."""
    both = [[grooves.stability(bars) for bars in performances] for performances in (ours, whole)]
    rows = []
    for inner in range(BARS - 2):
        played, human = (_mean([values[inner] for values in each if len(values) > inner]) for each in both)
        rows.append({"bar": inner + 2, "played": played, "human": human})
    return rows


def check_played(completions: Any, records: Sequence[Record]) -> list[Played]:
    """Return completions with the prompts that they answer.

    Raises
    ------
    InvalidPrediction
        For another number of completions than of records, one that is no text, or one of more than 100,000 characters.
    """
    if not isinstance(completions, Sequence) or isinstance(completions, str) or len(completions) != len(records):
        count = len(completions) if isinstance(completions, Sequence) else type(completions).__name__
        raise InvalidPrediction(f"play must return a list of {len(records)} completions, not {count}")
    for record, completion in zip(records, completions, strict=True):
        if not isinstance(completion, str):
            raise InvalidPrediction(f"{record.name}: a completion must be text, not {type(completion).__name__}")
        if len(completion) > _LONGEST:
            raise InvalidPrediction(f"{record.name}: a completion of {len(completion)} characters, at most {_LONGEST}")
    return [Played(r.name, r.prompt, text) for r, text in zip(records, completions, strict=True)]


def write(path: Path, played: Sequence[Played]) -> None:
    """Write continuations as a JSON list of name, prompt and completion (the keys of the released jsonl files)."""
    rows = [{"prompt": groove.prompt, "completion": groove.completion, "name": groove.name} for groove in played]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def read(path: Path, records: Sequence[Record]) -> list[Played]:
    """Return continuations made elsewhere.

    Parameters
    ----------
    path
        A JSON list as `write` makes it, one such object a line (``.jsonl``), or a folder with one ``NAME.txt`` or
        ``NAME.mid`` for each record: the whole groove, prompt included, without separators.
    records
        Whose prompts are continued.

    Raises
    ------
    DataError
        One line: a file that cannot be read, a groove that is missing, there twice or unknown, a text that does not
        begin with its prompt.
    """
    found = _from_folder(path, records) if path.is_dir() else _from_file(path)
    names = [record.name for record in records]
    by_name: dict[str, Played] = {}
    for groove in found:
        if groove.name not in names:
            raise DataError(f"{path}: {groove.name!r} is no test groove{did_you_mean(groove.name, names)}")
        if groove.name in by_name:
            raise DataError(f"{path}: groove {groove.name} is there twice")
        if groove.prompt != records[names.index(groove.name)].prompt:
            raise DataError(f"{path}: groove {groove.name} answers another prompt than the test's")
        by_name[groove.name] = groove
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DataError(f"{path}: needs a continuation of every test groove; {missing[0]} is missing ({len(missing)})")
    return [by_name[name] for name in names]


def _from_file(path: Path) -> list[Played]:
    try:
        text = path.read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines() if line] if path.suffix == ".jsonl" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no JSON ({' '.join(str(error).split())[:80]})") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: needs a list of objects with name, prompt and completion")
    found = []
    for number, row in enumerate(rows, start=1):
        texts = [row.get(key) if isinstance(row, dict) else None for key in ("name", "prompt", "completion")]
        if not all(isinstance(value, str) for value in texts):
            raise DataError(f"{path}: entry {number}: needs the texts name, prompt and completion")
        if len(texts[2]) > _LONGEST:  # type: ignore[arg-type]
            raise DataError(f"{path}: entry {number}: the completion is longer than {_LONGEST} characters")
        found.append(Played(*texts))  # type: ignore[arg-type]
    return found


def _from_folder(path: Path, records: Sequence[Record]) -> list[Played]:
    prompts = {record.name: record.prompt for record in records}
    files = sorted(file for file in path.iterdir() if file.suffix in (".txt", ".mid", ".midi"))
    if not files:
        raise DataError(f"{path}: holds no .txt or .mid file")
    found = []
    for file in files:
        if file.suffix == ".txt":
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file}: is no text ({type(error).__name__})") from None
            if len(lines) > _LONGEST:
                raise DataError(f"{file}: has {len(lines)} lines, a groove has 256")
        else:
            lines = list(read_midi(file.read_bytes(), str(file)).lines)
        prompt = prompts.get(file.stem, "")
        asked = played_lines(prompt)
        if lines[: len(asked)] != asked:
            raise DataError(f"{file}: does not begin with the two bars of its prompt")
        rest = "".join(f"{line}\n" for line in lines[len(asked) :])
        found.append(Played(file.stem, prompt, rest, marked=False))
    return found
