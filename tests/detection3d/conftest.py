"""mmcv-lite lacks the compiled operations that mmdet and mmdet3d import: something has to stand there first."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("mmcv") is not None:
    from benchsuite_cmt.compiled_ops import prepare_mmcv

    prepare_mmcv()
