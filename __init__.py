"""ComfyUI's entry point: the list of nodes, nothing else.

The host is imported when it asks for the nodes, not before: test runners and type checkers import this
file as well.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./web"

# The host loads this folder under a name of its own; `ice_core` must be importable by its name. At the
# end of the path, so that nothing of the host (its own `nodes` module, for one) is ever shadowed.
if (_root := str(Path(__file__).parent)) not in sys.path:
    sys.path.append(_root)


async def comfy_entrypoint() -> ComfyExtension:
    from .nodes.extension import IceExtension

    return IceExtension()
