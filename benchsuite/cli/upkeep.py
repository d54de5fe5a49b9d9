"""The cache, and whether the installation is sound."""

from __future__ import annotations

from typing import Annotated

import typer

from benchsuite.cli._shared import PUBLISHED, RUNS, Debug, Json, print_json
from benchsuite.core.errors import UserError, did_you_mean
from benchsuite.core.registry import get_registry


def cache_info(as_json: Json = False, debug: Debug = False) -> None:
    """Show where the cache is and what it holds."""
    from benchsuite.harness.cache import Cache, default_cache_root

    cache = Cache(default_cache_root())
    usage = cache.usage()
    if as_json:
        entries = {name: {"entries": count, "bytes": size} for name, (count, size) in usage.items()}
        print_json({"folder": str(cache.root), "steps": entries})
        return
    print(f"folder: {cache.root}")
    for name, (count, size) in usage.items():
        print(f"  {name}: {count} entries, {size / 1e6:.1f} MB")


def cache_clear(
    name: Annotated[str | None, typer.Argument(help="Only this step.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove cached steps; they are built again when needed."""
    from benchsuite.harness.cache import Cache, default_cache_root

    cache = Cache(default_cache_root())
    if name is not None and name not in cache.usage():
        raise UserError(f"the cache holds no step {name!r}{did_you_mean(name, cache.usage())}")
    count = cache.clear(name)
    if as_json:
        print_json({"removed": count})
    else:
        print(f"removed {count} entries")


def doctor(as_json: Json = False, debug: Debug = False) -> int:
    """Check this installation: plugins, libraries, GPU, folders."""
    from benchsuite.harness.doctor import examine

    findings = examine(get_registry(), [RUNS, PUBLISHED])
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok     ' if finding.good else 'PROBLEM'} {finding.what}: {finding.detail}")
    return 0 if all(finding.good for finding in findings) else 1
