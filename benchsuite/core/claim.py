"""Claims of papers as data, so that a leaderboard can say which of them hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Form = Literal["superiority", "non-inferiority", "equivalence", "bound", "cost"]


@dataclass(frozen=True)
class Claim:
    """One checkable sentence about results.

    The effect is ``metric(method) - metric(against)``, signed so that positive means "as claimed"
    (``higher`` says which sign that is), averaged over the shared outermost seeds.

    Parameters
    ----------
    id, statement
        A short name, and the claim in one sentence.
    form
        ``superiority``: effect > margin. ``non-inferiority``: effect > -margin.
        ``equivalence``: abs(effect) < margin. ``bound``: metric(method) itself against ``margin``.
        ``cost``: superiority by ``margin`` while ``cost_metric`` worsens by at most ``cost_at_most``.
    task, metric, method, against
        What is compared; ``against`` is empty for ``bound``.
    higher
        True if the claim says that the method's metric is higher.
    margin, cost_metric, cost_at_most
        In the unit of the metric (fractions for ratios).
    smallest_effect
        How far beyond its bar the effect must lie to be worth a claim, in the unit of the metric; the number of seeds
        is planned for it. Forms with a margin that is no bar to beat (non-inferiority, equivalence) need none.
    reported
        The paper's own effect, only where it has a source; else empty.
    paper_data
        Data sets on which the verdict is about the paper itself. Elsewhere the claim "holds" or
        "does not hold" on that data set.
    protocol
        Protocol fields that must match; empty: every protocol.
    family
        Whose claims are corrected together: the file that they stand in.
    """

    id: str
    statement: str
    form: Form
    task: str
    metric: str
    method: str
    against: str = ""
    higher: bool = True
    margin: float = 0.0
    cost_metric: str = ""
    cost_at_most: float = 0.0
    smallest_effect: float = 0.0
    reported: str = ""
    paper_data: tuple[str, ...] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
