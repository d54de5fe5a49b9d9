"""Drum generation: a drummer hears two bars and plays fourteen more; how people played on judges them.

A groove is repetition with variation. So drummers are ranked by the distance between two distributions: of the
*stability* of their bars (edits to the nearer neighbour) and of that of people's. Two cheap ways to sound human are
shut out by the constraint on new valid bars: who repeats the prompt, or pastes bars of the training recordings, plays
nothing that was not heard before, and who writes what is no drumroll plays nothing. People play about twice what
the constraint asks for. Chance plays new bars only, and is far from people in stability.

The distance between halves of the human recordings themselves stands beside it in every row: nobody can be expected to
come closer than that.

Protocol: 16 bars, two of them prompt, splits of the Groove MIDI Dataset, one continuation a prompt. Of the published
statistics both readings are given: the official one (human recordings with silence at the beginning, silent bars
at the end as perfectly stable, the second bar of the prompt counted as played) in columns and metrics that say so, and
one of the same stripped recordings for both and bars behind the prompt that sound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchsuite.core import Constraint, Metric, Outcome, Ranking, RunContext, Task
from benchsuite.core.errors import DataError
from benchsuite.datasets.drums.drumroll import BAR_LINES, PROMPT_BARS, Record, bars_of, record_of, stripped
from benchsuite.datasets.drums.recordings import DrumRecordings, Recording
from benchsuite.metrics.drum_grooves import is_silent
from benchsuite.tasks.drum_generation.contract import DrumComposer, DrumGenerationProtocol, TrainingGrooves
from benchsuite.tasks.drum_generation.judge import Human, check_played, judge, read, write

_PREDICTIONS = "predictions.json"
# Under --split val every eighth training groove takes the place of the validation recordings.
_EVERY = 8


class DrumGeneration(Task[DrumComposer, DrumRecordings, DrumGenerationProtocol]):
    """See the module's description."""

    name = "drum-generation"
    version = "1"
    Protocol = DrumGenerationProtocol
    metrics = (
        Metric(
            "stability_w1",
            "min",
            "edits",
            doc="Wasserstein distance to people's of pooled stability: edits from a played bar to its nearer neighbour",
        ),
        Metric(
            "stability_w1_floor", "min", "edits", doc="the same between halves of the human test recordings, 100 draws"
        ),
        Metric(
            "new_bar_rate",
            "max",
            doc="whole valid bars heard neither in training, prompt nor before, of fourteen a groove",
        ),
        Metric("bits_per_character", "min", "bits", doc="-log2 of the probability of human completions, a character"),
        Metric(
            "stability_w1_official", "min", "edits", doc="as the official statistics count: unstripped, silent bars too"
        ),
        Metric("line_validity", "max", doc="share of played lines that are six of o and -"),
        Metric("separator_validity", "max", doc="share of separators that stand after 16 lines"),
        Metric("completeness", "max", doc="whole bars played of fourteen"),
        Metric("end_rate", "max", doc="share of continuations that come to an END"),
        Metric("training_copy_rate", "min", doc="share of played bars that stand verbatim in training recordings"),
        Metric("test_copy_rate", "min", doc="share of played bars that stand verbatim in the human test recordings"),
        Metric("mean_stability_difference", "min", "edits", doc="of mean stability from people's"),
        Metric(
            "cluster_gap_difference", "min", "edits", doc="of the gap of the two clusters of stability from people's"
        ),
        Metric("cluster_spread_difference", "min", "edits", doc="of the spread of the clusters from people's"),
        Metric("identical_neighbours_difference", "min", doc="of the share of equal neighbours from people's"),
        Metric("unique_bars_difference", "min", doc="of the share of different bars in a groove from people's"),
        Metric(
            "hit_rate_l1", "min", "hits", doc="sum over six families of the difference in hits a line from people's"
        ),
        Metric("onset_density_difference", "min", doc="of the share of lines with a hit from people's"),
        Metric("back_beat_difference", "min", doc="of the share of bars with snare on two and four from people's"),
        Metric(
            "fill_difference", "min", doc="of the share of fills (tom, or upper cluster of stability) from people's"
        ),
        Metric("groove_consistency_difference", "min", doc="of MusPy's groove consistency from people's"),
        Metric("pattern_consistency", "max", doc="MusPy's drum pattern consistency: 1 on a grid of sixteenths"),
        Metric("hits_per_bar_overlap", "max", doc="area that the histograms of hits a bar share with people's"),
        Metric("families_per_bar_overlap", "max", doc="the same of families that play in a bar"),
        Metric("stability_overlap", "max", doc="the same of stability"),
    )
    ranking = Ranking("stability_w1", Constraint("new_bar_rate", at_least=0.2))
    reference = "gpt2-scratch"
    data_type = "benchsuite.datasets.drums.recordings:DrumRecordings"
    method_type = DrumComposer
    default_data = "generated-grooves"
    judges_folders = True

    def evaluate(
        self,
        method: DrumComposer,
        data: Mapping[str, DrumRecordings],
        protocol: DrumGenerationProtocol,
        ctx: RunContext,
    ) -> Outcome:
        """Let the method learn, play on from every prompt, and say how likely it finds what people played."""
        train, validation = (_usable(data["train"].of(part), protocol) for part in ("train", "validation"))
        judged = _usable(data["test"].of("test"), protocol)
        if ctx.split == "val":
            judged, validation = validation, train[::_EVERY]
            train = [recording for place, recording in enumerate(train) if place % _EVERY]
        records = _records(judged)
        grooves = TrainingGrooves(_records(train), _records(validation))
        for part, found in (("train", grooves.train), ("validation", grooves.validation), (ctx.split, records)):
            if not found:
                raise DataError(f"{data['test'].name}: no {part} recording has more than eight bars")
        human = _human(judged, records, grooves.train)
        with ctx.phase("fit"):
            drummer = method.fit(grooves, ctx)
        with ctx.phase("predict"):
            played = check_played(drummer.play([record.prompt for record in records], ctx), records)
        with ctx.phase("likelihood"):
            bits = drummer.bits(records, ctx)
        write(ctx.artifact(_PREDICTIONS), played)
        outcome = judge(played, human, bits)
        outcome.parameters = drummer.parameters
        outcome.counts |= _counts(grooves, train + validation + judged)
        outcome.tables["left_out"] = _left_out(data["test"], protocol)
        from benchsuite.tasks.drum_generation.pictures import keep_examples

        keep_examples(ctx, played, records, protocol.soundfont)
        return outcome

    def with_other_answers(self, data: Mapping[str, DrumRecordings]) -> Mapping[str, DrumRecordings]:
        """Return the data with every test groove turned inside out behind its prompt."""
        return {role: replace(found, recordings=tuple(map(_turned, found.recordings))) for role, found in data.items()}

    def score(self, predictions: Path, data: Mapping[str, DrumRecordings], protocol: DrumGenerationProtocol) -> Outcome:
        """Judge continuations of the test prompts: a file or folder as `judge.read` takes it."""
        judged = _usable(data["test"].of("test"), protocol)
        train = _records(_usable(data["train"].of("train"), protocol))
        records = _records(judged)
        outcome = judge(read(predictions, records), _human(judged, records, train))
        outcome.undefined["bits_per_character"] = "played elsewhere"
        return outcome


def _usable(recordings: Sequence[Recording], protocol: DrumGenerationProtocol) -> list[Recording]:
    return [r for r in recordings if protocol.metres == "all" or r.numerator == 4]


def _records(recordings: Sequence[Recording]) -> list[Record]:
    """Return the records of the recordings that are long enough."""
    found = [record_of(recording.name, recording.lines) for recording in recordings]
    return [record for record in found if record is not None]


def _human(judged: Sequence[Recording], records: Sequence[Record], train: Sequence[Record]) -> Human:
    kept = {record.name for record in records}
    bars = Counter(bar for record in train for bar in bars_of(record.lines) if not is_silent(bar))
    return Human(records, [recording.lines for recording in judged if recording.name in kept], bars)


def _counts(grooves: TrainingGrooves, used: Sequence[Recording]) -> dict[str, int]:
    return {
        "training_records": len(grooves.train),
        "validation_records": len(grooves.validation),
        "short_recordings": sum(record_of(recording.name, recording.lines) is None for recording in used),
    }


def _left_out(data: DrumRecordings, protocol: DrumGenerationProtocol) -> list[dict[str, object]]:
    """Return what was not taken and how many of it: by the reader, and by the protocol."""
    others = len(data.recordings) - len(_usable(data.recordings, protocol))
    rows: list[dict[str, object]] = [{"what": what, "count": count} for what, count in data.left_out.items()]
    return rows + ([{"what": "recordings not in 4/4", "count": others}] if others else [])


def _turned(recording: Recording) -> Recording:
    if recording.part != "test":
        return recording
    first = len(recording.lines) - len(stripped(recording.lines)) + PROMPT_BARS * BAR_LINES
    other = tuple(line.translate({ord("o"): "-", ord("-"): "o"}) for line in recording.lines[first:])
    return replace(recording, lines=recording.lines[:first] + other)
