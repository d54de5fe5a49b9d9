"""By formula: the payload bytes that a rank sends in the exchange of one bucket (mean over ranks).

Derived from the algorithms alone; the task counts what really goes out.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from benchsuite.tasks.distributed_training.contract import World, all_reduce_bytes
from benchsuite_bagua.compressor import Compressor


def full_precision_bytes(elements: int, participants: int) -> Fraction:
    """Return the bytes of a mean in float32 over all participants (C_FP_S, D_FP_S among all)."""
    return all_reduce_bytes(4 * elements, participants)


def low_precision_bytes(compressor: Compressor, elements: int, participants: int) -> Fraction:
    """Return the bytes of a mean through two compressions (C_LP_S): all-to-all of chunks, then all-gather."""
    chunk = compressor.chunk_bytes(-(-elements // participants))
    return Fraction(2 * (participants - 1) * chunk)


def ring_bytes(compressor: Compressor, elements: int, participants: int) -> Fraction:
    """Return the bytes of one code sent to both neighbours (D_LP_S)."""
    return Fraction(2 * compressor.chunk_bytes(elements) if participants > 1 else 0)


def peer_bytes(elements: int, participants: int) -> Fraction:
    """Return the bytes of weights sent to one peer (D_FP_S, shift_one)."""
    return Fraction(4 * elements if participants > 1 else 0)


def hierarchical_bytes(
    elements: int, world: World, hierarchical: bool, operation: Callable[[int, int], Fraction]
) -> Fraction:
    """Return the bytes of an operation(elements, participants) among all ranks, or among the nodes' leaders.

    In the second case a float32 reduction to the leader and a broadcast from it come on top inside a node.
    """
    per_node = world.ranks_per_node if hierarchical else 1
    inside = Fraction(2 * (per_node - 1) * 4 * elements, per_node)
    return inside + operation(elements, world.size // per_node) / per_node
