"""Inside a host's Python: the host started up, and the pack loaded as it loads a custom node."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType


def enter(host: str, pack: str, options: Sequence[str] = ()) -> None:
    """Make `comfy` and `ice_pack` importable. host, pack: their folders; options: the host's own."""
    sys.path.insert(0, host)
    os.chdir(host)
    sys.argv = [sys.argv[0], "--cpu", *options]
    import comfy.options

    comfy.options.enable_args_parsing()
    importlib.import_module("comfy.model_management")
    # As the host loads a custom node: under a name of its own.
    spec = importlib.util.spec_from_file_location(
        "ice_pack", Path(pack) / "__init__.py", submodule_search_locations=[pack]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ice_pack"] = module
    spec.loader.exec_module(module)


def pack_module(name: str) -> ModuleType:
    """A module of the pack, "nodes.host.backbone"."""
    return importlib.import_module(f"ice_pack.{name}")
