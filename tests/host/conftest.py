"""A real ComfyUI server per installation of this machine, on the CPU, with only this pack.

    COMFYUI_PATH=/path/to/ComfyUI[:/path/to/another] COMFYUI_PYTHON=/path/to/its/python pytest tests/host

Without COMFYUI_PATH the host that this pack is installed in is taken, else ~/comfy/ComfyUI.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from graphs import demo_graph

from tools.comfy_client import Client, Run
from tools.comfy_host import Host, Server, find_hosts, running

if TYPE_CHECKING:
    from tools.comfy_page import Page

HOSTS = find_hosts()


@pytest.fixture(scope="session", params=HOSTS or [None], ids=lambda host: host.version if host else "no host")
def host(request: pytest.FixtureRequest) -> Host:
    """Each installation in turn; what cannot be started here is skipped with its reason."""
    found: Host | None = request.param
    if found is None:
        pytest.skip("there is no ComfyUI: set COMFYUI_PATH to its folder")
    if (problem := found.problem()) is not None:
        pytest.skip(problem)
    return found


@pytest.fixture(scope="session")
def server(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(host, tmp_path_factory.mktemp(f"comfyui-{host.version}")) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.url)


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    """The server's page in a browser."""
    from tools.comfy_page import missing, opened

    if (problem := missing()) is not None:
        pytest.skip(problem)
    with opened(server.url) as started:
        yield started


@pytest.fixture(scope="session")
def demo_run(server: Server) -> Run:
    """Workflow 1 with few steps, run once per host; its files are there for the tests that use them."""
    return Client(server.url).run(demo_graph())
