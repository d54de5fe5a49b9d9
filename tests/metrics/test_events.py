"""Event matching against hand cases, an assignment solver and wfdb."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchsuite.metrics import events
from benchsuite.metrics.events import (
    CPSC2019Score,
    EventCounts,
    count_events,
    cpsc2019_score,
    ec57_counts,
    macro_f1,
    match_events,
    tolerance_in_samples,
)

times = st.lists(st.integers(0, 80), unique=True, max_size=10).map(sorted)


def counts(reference, estimate, tolerance):
    found = count_events(reference, estimate, tolerance)
    return found.tp, found.fp, found.fn


@pytest.mark.parametrize(
    ("reference", "estimate", "tolerance", "expected"),
    [
        ([10, 50], [10, 50], 5, (2, 0, 0)),
        ([100], [137], 37, (1, 0, 0)),
        ([100], [138], 37, (0, 1, 1)),
        ([100], [98, 103], 10, (1, 1, 0)),
        ([96, 160], [128, 185], 37, (2, 0, 0)),
        ([0, 20, 40], [12, 32, 52], 15, (3, 0, 0)),
        ([], [], 5, (0, 0, 0)),
        ([], [3], 5, (0, 1, 0)),
        ([3], [], 5, (0, 0, 1)),
    ],
)
def test_hand_cases(reference, estimate, tolerance, expected):
    assert counts(reference, estimate, tolerance) == expected


def test_ties_go_to_the_least_total_distance():
    assert match_events([100], [92, 101], 10).tolist() == [[0, 1]]
    assert match_events([10, 20], [11, 19, 29], 9).tolist() == [[0, 0], [1, 1]]


@given(times, times, st.integers(0, 15))
def test_is_the_best_one_to_one_assignment(reference, estimate, tolerance):
    from scipy.optimize import linear_sum_assignment

    pairs = match_events(reference, estimate, tolerance)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    ref, est = np.array(reference, dtype=float), np.array(estimate, dtype=float)
    distance = np.abs(ref[:, None] - est[None])
    worth = np.where(distance <= tolerance, 1000 - distance, 0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    mine = sum(1000 - abs(reference[i] - estimate[j]) for i, j in pairs)
    assert mine == pytest.approx(worth[rows, columns].sum())


def worth_of_the_best_matching(reference, estimate, tolerance) -> tuple[int, int]:
    """Return pairs and minus their total distance, exactly: every reference against every estimate, in tuples."""
    best = [(0, 0)] * (len(estimate) + 1)
    for time in reference:
        row = [(0, 0)]
        for j, other in enumerate(estimate):
            ways = [best[j + 1], row[j]]
            if abs(time - other) <= tolerance:
                ways.append((best[j][0] + 1, best[j][1] - abs(time - other)))
            row.append(max(ways))
        best = row
    return best[-1]


crowds = st.lists(st.integers(1, 30), min_size=20, max_size=60).map(lambda gaps: np.cumsum(gaps).tolist())


@pytest.mark.parametrize("short", [0, 6, 32])  # groups matched one by one, some so, most of them together
@given(st.lists(crowds, min_size=1, max_size=3), st.lists(crowds, min_size=1, max_size=3), st.integers(0, 40))
def test_crowded_events_are_matched_as_well_as_can_be(short, references, estimates, tolerance):
    reference, estimate = (
        np.unique([time + 700 * i for i, crowd in enumerate(crowds) for time in crowd]).tolist()
        for crowds in (references, estimates)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_SHORT", short)
        pairs = match_events(reference, estimate, tolerance)
        in_seconds = match_events(np.array(reference) / 360, np.array(estimate) / 360, (tolerance + 0.1) / 360)
    assert (np.diff(pairs, axis=0) > 0).all()
    distances = [abs(reference[i] - estimate[j]) for i, j in pairs]
    assert all(distance <= tolerance for distance in distances)
    assert (len(pairs), -sum(distances)) == worth_of_the_best_matching(reference, estimate, tolerance)
    in_samples = sum(abs(reference[i] - estimate[j]) for i, j in in_seconds)
    assert (len(in_seconds), in_samples) == (len(pairs), sum(distances))


@given(st.lists(st.integers(5, 60), min_size=1, max_size=300), st.integers(0, 2**32 - 1))
def test_groups_matched_together_are_matched_as_they_are_one_by_one(gaps, seed):
    reference = np.cumsum(gaps)
    estimate = np.unique(reference + np.random.default_rng(seed).integers(-50, 50, len(gaps)))
    together = match_events(reference, estimate, 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_SHORT", 0)
        assert match_events(reference, estimate, 30).tolist() == together.tolist()


@given(st.integers(1, 40), st.lists(st.integers(1, 200), min_size=1, max_size=60), st.data())
def test_agrees_with_wfdb_where_beats_are_further_apart_than_twice_the_tolerance(tolerance, gaps, data):
    processing = pytest.importorskip("wfdb.processing")
    reference = np.cumsum([gap + 2 * tolerance for gap in gaps])
    estimate = sorted(data.draw(st.sets(st.integers(0, int(reference[-1]) + 100), min_size=1, max_size=80)))
    found = processing.compare_annotations(reference, np.array(estimate), tolerance + 1)
    assert counts(reference, estimate, tolerance) == (found.tp, found.fp, found.fn)


def test_differs_from_wfdb_on_purpose_where_beats_crowd():
    processing = pytest.importorskip("wfdb.processing")
    found = processing.compare_annotations(np.array([0, 20, 40]), np.array([12, 32, 52]), 16)
    assert (found.tp, found.fp, found.fn) == (2, 1, 1)


def test_dense_lists_stay_cheap():
    dense = np.arange(20_000)
    assert counts(dense, dense, 20) == (20_000, 0, 0)


@pytest.mark.parametrize("bad", [[3, 1], [1, 1], [[1, 2]], [0.0, float("nan")], ["a"]])
def test_bad_lists_are_refused(bad):
    with pytest.raises(ValueError, match="events must be"):
        match_events(bad, [1], 2)
    with pytest.raises(ValueError, match="events must be"):
        match_events([1], bad, 2)


def test_negative_tolerance_is_refused():
    with pytest.raises(ValueError, match="tolerance"):
        match_events([1], [1], -1)


def test_ratios_and_empty_lists():
    assert EventCounts(2, 1, 0).f1 == pytest.approx(0.8)
    assert EventCounts(0, 0, 3).f1 == 0.0
    assert EventCounts(0, 0, 3).positive_predictivity is None
    assert EventCounts().f1 is None
    assert macro_f1([EventCounts(), EventCounts(1, 0, 0)]) == 1.0
    assert macro_f1([EventCounts()]) is None
    assert EventCounts(1, 2, 3) + EventCounts(1, 1, 1) == EventCounts(2, 3, 4)


def test_tolerance_is_floored():
    assert tolerance_in_samples(0.15, 360) == 54
    assert tolerance_in_samples(0.075, 500) == 37
    assert tolerance_in_samples(0.15, 128) == 19


def test_ec57_leaves_out_learning_period_and_fibrillation():
    reference, estimate = [100, 400, 900], [100, 410, 600, 700, 905]
    assert ec57_counts(reference, estimate, 1.0, tolerance_s=20, learning_s=200) == EventCounts(2, 2, 0)
    found = ec57_counts(reference, estimate, 1.0, tolerance_s=20, learning_s=200, fibrillation=[(550, 650)])
    assert found == EventCounts(2, 1, 0)


class TestCpsc2019:
    beats = np.arange(400, 4700, 400)

    def qrs(self, estimate, official=False):
        return cpsc2019_score([self.beats], [np.array(sorted(estimate))], official=official).qrs_accuracy

    def test_perfect(self):
        assert cpsc2019_score([self.beats], [self.beats]) == CPSC2019Score(1.0, 1.0)

    def test_extra_beat_between_the_first_two_is_unseen_by_the_official_program(self):
        extra = [*self.beats, 600]
        assert self.qrs(extra, official=True) == 1.0
        assert self.qrs(extra) == 0.7

    def test_extra_beat_elsewhere_counts_in_both(self):
        assert self.qrs([*self.beats, 1800]) == self.qrs([*self.beats, 1800], official=True) == 0.7

    def test_one_missed_beat(self):
        assert self.qrs(self.beats[1:]) == 0.3

    def test_two_errors(self):
        assert self.qrs(self.beats[2:]) == 0.0

    def test_37_samples_pass_and_38_do_not(self):
        assert self.qrs([*self.beats[:-1], self.beats[-1] + 37]) == 1.0
        assert self.qrs([*self.beats[:-1], self.beats[-1] + 38]) == 0.0

    def test_heart_rate_steps(self):
        for factor, worth in ((1.01, 1.0), (1.04, 0.75), (1.09, 0.5), (1.15, 0.25), (1.5, 0.0)):
            estimate = np.unique(np.round(np.arange(300, 4700, 400 / factor)).astype(int))
            assert cpsc2019_score([self.beats], [estimate]).heart_rate_score == worth

    @pytest.mark.parametrize(
        ("extra", "worth"),
        [(10, 1.0), (287, 1.0), (288, 0.7), (1238, 0.7), (1762, 0.7), (4712, 0.7), (4713, 1.0), (4990, 1.0)],
    )
    def test_where_an_extra_detection_counts(self, extra, worth):
        """At least 75 ms (37.5 samples) from 0.5 s, from a beat and from 9.5 s."""
        beats = np.array([400, 800, 1200, 1800, 2400, 3000, 3600, 4400])
        for official in (False, True):
            estimate = sorted([*beats, extra])
            assert cpsc2019_score([beats], [estimate], official=official).qrs_accuracy == worth

    def test_extras_after_an_only_beat_are_unseen_by_the_official_program(self):
        def worth(reference, estimate, official):
            return cpsc2019_score([reference], [estimate], official=official).qrs_accuracy

        assert [worth([2500], [2500, 4000], official) for official in (True, False)] == [1.0, 0.7]
        assert [worth([2500], [1000, 2500], official) for official in (True, False)] == [0.7, 0.7]
        assert [worth([], [4000], official) for official in (True, False)] == [1.0, 0.7]
        assert [worth([1000, 2500], [1000, 2500, 4000], official) for official in (True, False)] == [0.7, 0.7]

    def test_a_detection_exactly_75_ms_away_is_a_hit_and_an_extra_one_to_the_official_program(self):
        for official, worth in ((True, 0.7), (False, 1.0)):
            found = cpsc2019_score([[2000]], [[1925]], fs=1000.0, samples=10_000, official=official)
            assert found.qrs_accuracy == worth

    def test_the_official_heart_rate_is_rounded_for_the_reference_and_cut_for_the_answer(self):
        reference, estimate = np.arange(2800, 4700, 419), np.arange(2800, 4700, 406)  # 71.6 and 73.9 a minute
        scores = [cpsc2019_score([reference], [estimate], official=o).heart_rate_score for o in (True, False)]
        assert scores == [1.0, 0.75]
        scores = [cpsc2019_score([estimate], [reference], official=o).heart_rate_score for o in (True, False)]
        assert scores == [0.75, 0.75]
        reference = np.arange(2800, 4700, 400)
        estimate = np.arange(2800, 4700, 391)  # 75.0 and 76.7: 76 is 1.3 % off, 77 is 2.7 %
        scores = [cpsc2019_score([reference], [estimate], official=o).heart_rate_score for o in (True, False)]
        assert scores == [1.0, 0.75]

    def test_segments_are_averaged(self):
        one, other = self.beats, np.arange(450, 4700, 410)
        assert cpsc2019_score([one, other], [one, other[1:]]).qrs_accuracy == pytest.approx(0.65)

    def test_no_detection(self):
        assert cpsc2019_score([self.beats], [[]]) == CPSC2019Score(0.0, 0.0)

    def test_lists_must_correspond(self):
        with pytest.raises(ValueError, match="as many"):
            cpsc2019_score([self.beats], [])
