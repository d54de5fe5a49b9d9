"""mmcv without its compiled operations: what of mmdet3d can still be imported, and saying so honestly."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any, NoReturn

__all__ = ["has_compiled_ops", "prepare_mmcv"]

_EXTENSION = "mmcv._ext"


def has_compiled_ops() -> bool:
    """Return whether mmcv's real extension is installed."""
    known = sys.modules.get(_EXTENSION)
    if known is not None:
        return not isinstance(known, _Missing)
    if importlib.util.find_spec("mmcv") is None:
        return False
    return importlib.util.find_spec(_EXTENSION) is not None


class _Missing(types.ModuleType):
    """Stands where the extension would: it imports, and every operation refuses."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise NotImplementedError(
                f"mmcv's operation {name} is not compiled here (mmcv-lite): has_compiled_ops() is False"
            )

        return refuse


def prepare_mmcv() -> bool:
    """Make mmdet and mmdet3d importable beside mmcv-lite, and return whether operations are compiled.

    Only where the real extension is missing a module takes its place whose operations raise NotImplementedError. Call
    it before mmdet or mmdet3d is imported.

    Raises
    ------
    ImportError
        If there is no mmcv at all.
    """
    if has_compiled_ops():
        return True
    importlib.import_module("mmcv")
    if _EXTENSION not in sys.modules:
        stub = _Missing(_EXTENSION)
        stub.__spec__ = importlib.machinery.ModuleSpec(_EXTENSION, loader=None)
        sys.modules[_EXTENSION] = stub
    return False
