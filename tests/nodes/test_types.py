"""The nodes against the host's own types, which are there only where a ComfyUI is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tools.comfy_host import PACK, Host, find_hosts


@pytest.mark.host
@pytest.mark.parametrize("host", find_hosts() or [None], ids=lambda host: host.version if host else "no host")
def test_nodes_agree_with_the_hosts_types(host: Host | None) -> None:
    pytest.importorskip("mypy")
    if host is None:
        pytest.skip("there is no ComfyUI whose types the nodes could be checked against: set COMFYUI_PATH")
    command = [sys.executable, "-m", "mypy", "nodes", "__init__.py", "--follow-imports=silent"]
    command += ["--cache-dir", f".mypy_cache/comfyui-{host.version}"]
    # Our `nodes` before the host's own module of that name.
    environment = {**os.environ, "MYPYPATH": os.pathsep.join((str(PACK), str(host.path)))}
    done = subprocess.run(command, cwd=PACK, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
