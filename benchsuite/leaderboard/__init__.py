"""Results -> statistics -> tables, pages and verdicts on claims.

The package is also the function `benchsuite.leaderboard`: one name for both, whichever is imported first.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


class _CallableModule(types.ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `benchsuite.api.leaderboard`."""
        return importlib.import_module("benchsuite.api").leaderboard(*args, **options)


sys.modules[__name__].__class__ = _CallableModule
