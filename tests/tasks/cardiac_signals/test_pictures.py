"""Pictures of signals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from benchsuite.tasks.cardiac_signals import pictures


def test_pictures_cut_spikes_off_and_shade_what_is_not_judged(tmp_path):
    time = np.arange(1000) / 100
    signal = np.sin(time)
    signal[500] = 400.0
    low, high = pictures._visible_range(signal)
    assert -3.1 < low < -0.99
    assert 0.99 < high < 3.1
    assert pictures._visible_range(np.sin(time)) == (np.sin(time).min(), np.sin(time).max())
    events = {"beats": np.array([1.0, 2.0])}
    strip = pictures.Strip("one", time, signal, "mV", events, events, unjudged=[(0.0, 0.5)])
    pictures.draw_strips(tmp_path / "picture.png", [strip, replace(strip, unjudged=())])
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_scored_is_not_judged_in_the_picture(ecg):
    record = replace(ecg.records[0], scored=(100, 400))
    assert pictures._unjudged(record, 0, 500) == [(0.0, 0.4), (1.6, 2.0)]
    assert pictures._unjudged(ecg.records[0], 0, 500) == []
