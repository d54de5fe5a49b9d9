"""Data sets as data: what they are, where they come from, and how to load them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DatasetSpec:
    """One data set. Holds strings only, so that listing imports no reader.

    Parameters
    ----------
    name, version
        Identity; bump ``version`` when the reader yields other data for the same files.
    data_type
        ``"module:Class"`` of the object that ``load`` returns. A task takes every data set of its type.
    load
        ``"module:callable"``, called as ``load(root: Path | None, draw: int)``. ``draw`` selects which
        sample of generated data is taken (real data ignore it).
    title, homepage, licence, citation
        For people: what it is, where it comes from, what it may be used for, how it is cited.
    embedded
        True if the data are generated or shipped inside a package: no files needed.
    parameters
        What determines generated data besides the draw; hashed with the version.
    files
        Glob patterns, relative to the data root, of the files whose content is the data set's identity.
    optional_files
        Likewise, but the data set loads without them.
    bulk_files
        Glob patterns of further files that are too large to hash: their names and sizes count.
    layout
        One line: the files expected under the data root.
    requires, install
        Import names of the libraries that the reader needs, and the command that installs them.
    """

    name: str
    version: str
    data_type: str
    load: str
    title: str = ""
    embedded: bool = False
    homepage: str = ""
    licence: str = ""
    citation: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    optional_files: tuple[str, ...] = ()
    bulk_files: tuple[str, ...] = ()
    layout: str = ""
    requires: tuple[str, ...] = ()
    install: str = ""


@dataclass(frozen=True)
class DataSource:
    """A data set together with the folder it is read from (None for embedded data)."""

    spec: DatasetSpec
    root: Path | None = None
