"""Tensors gathered into buckets, and buckets laid out as one block of memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def bucket_sizes(sizes: Sequence[int], bucket_bytes: int, element_bytes: int = 4) -> list[int]:
    """Return the number of elements of every bucket of gradients.

    Tensors are taken in the order in which backward finishes them (mostly the reverse of their registration),
    into one bucket until it holds at least ``bucket_bytes``. Both the official bucketing and DDP's follow this
    rule (DDP from its second step on: its first step uses a single bucket).

    Parameters
    ----------
    sizes
        Number of elements of every parameter, in that order.
    bucket_bytes
        A bucket is closed as soon as it is at least this large.
    """
    buckets, filled = [], 0
    for size in sizes:
        filled += size
        if filled * element_bytes >= bucket_bytes:
            buckets.append(filled)
            filled = 0
    return buckets + [filled] * (filled > 0)


def flatten_in_place(parameters: Iterable[torch.nn.Parameter]) -> Tensor:
    """Move parameters into one block of memory and return it, (N,); each becomes a view of its part."""
    parameters = list(parameters)
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data = part.view_as(parameter)
    return flat


def padded(flat: Tensor, multiple: int) -> Tensor:
    """Return a copy of a vector with zeros appended up to a multiple of elements."""
    out = flat.new_zeros(-(-flat.numel() // multiple) * multiple)
    out[: flat.numel()] = flat
    return out
