"""Recordings of persons: splits in which nobody stands on both sides, the lead looked at, and picking examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from benchsuite.core.errors import DataError
from benchsuite.datasets.ecg.reader import UNNAMED_LEAD, EcgRecord
from benchsuite.tasks.cardiac_signals.qrs_contract import QrsProtocol, Signal

_VALIDATION_SHARE = 0.2
_TEST_SHARE = 0.3


class Recording(Protocol):
    """What a split needs to know of a recording."""

    @property
    def name(self) -> str:
        """Return the name, unique in its data set."""

    @property
    def patient(self) -> str:
        """Return whose recording it is, unique over data sets."""

    @property
    def part(self) -> str:
        """Return ``train``, ``test`` or ``any``."""


R = TypeVar("R", bound=Recording)


def divide(training: Sequence[R], testing: Sequence[R], split: Literal["test", "val"]) -> tuple[list[R], list[R]]:
    """Return the records to train on and those to judge on.

    Records marked ``train`` or ``test`` stay on their side. If both roles name the same unmarked recordings, 30 % of
    the persons become the test part by a fixed draw. For ``val`` a fixed 20 % of the persons are taken out of the
    training part and judged on instead of the test part, which is not looked at.

    Raises
    ------
    DataError
        If a person stands on both sides, or a side is empty.
    """
    train = [record for record in training if record.part != "test"]
    test = [record for record in testing if record.part != "train"]
    if {r.patient for r in train} == {r.patient for r in test}:
        chosen = _draw_persons(train, _TEST_SHARE)
        train = [record for record in train if record.patient not in chosen]
        test = [record for record in test if record.patient in chosen]
    shared = sorted({r.patient for r in train} & {r.patient for r in test})
    if shared:
        raise DataError(f"{shared[0]} is in the training and in the test data: use data sets without common persons")
    if split == "val":
        chosen = _draw_persons(train, _VALIDATION_SHARE)
        test = [record for record in train if record.patient in chosen]
        train = [record for record in train if record.patient not in chosen]
    if not train or not test:
        raise DataError(f"{len(train)} training and {len(test)} test records: too few persons to split")
    return train, test


def _draw_persons(records: Sequence[Recording], share: float) -> set[str]:
    persons = sorted({record.patient for record in records})
    count = max(1, round(share * len(persons)))
    return set(np.random.default_rng(0).permutation(persons)[:count].tolist())


def lead_signal(record: EcgRecord, protocol: QrsProtocol) -> Signal:
    """Return (T,) float32 millivolts of the lead that the protocol names; see `QrsProtocol`."""
    return record.lead("" if protocol.lead == "first" or record.leads == (UNNAMED_LEAD,) else protocol.lead)


def representative(values: Sequence[Any]) -> list[int]:
    """Return the places of the worst, a middling and the best value; None counts as the worst."""
    order = sorted(range(len(values)), key=lambda i: -1.0 if values[i] is None else float(values[i]))
    return list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))
