"""Finding the ComfyUI installations of this machine, and running one as a server with only this pack."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACK = Path(__file__).absolute().parents[1]
"""This repository, as it was reached: inside `custom_nodes` where it was linked there."""

START_SECONDS = 300.0
NEEDED = (
    "torch, torchvision, torchaudio, torchsde, transformers, aiohttp, alembic, av, open_clip, matplotlib, "
    "scipy"
)
"""What a host's Python must import: the host's own requirements and the pack's heavier ones."""


@dataclass(frozen=True)
class Host:
    """A ComfyUI folder, its version as it says itself, and the Python that runs it."""

    path: Path
    version: str
    python: Path

    def problem(self) -> str | None:
        """Why this host cannot start here, None when it can. Costs the imports, some seconds."""
        check = subprocess.run(
            [str(self.python), "-c", f"import {NEEDED}"], capture_output=True, text=True, cwd=self.path
        )
        if check.returncode == 0:
            return None
        last = check.stderr.strip().splitlines()[-1:] or ["no message"]
        return f"{self.python} cannot import what ComfyUI {self.version} needs: {last[0]}"


def find_hosts(environment: Mapping[str, str] = os.environ) -> list[Host]:
    """COMFYUI_PATH (folders, separated as in PATH), else the host this pack is installed in, else
    ~/comfy/ComfyUI; empty when there is none."""
    if given := environment.get("COMFYUI_PATH"):
        folders = [Path(text).expanduser() for text in given.split(os.pathsep) if text]
    elif PACK.parent.name == "custom_nodes" and _is_host(PACK.parents[1]):
        folders = [PACK.parents[1]]
    else:
        folders = [Path.home() / "comfy" / "ComfyUI"]
    return [
        Host(folder, version, _python(folder, version, environment))
        for folder in folders
        if _is_host(folder)
        for version in [_version(folder)]
    ]


def _is_host(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfyui_version.py").is_file()


def _version(folder: Path) -> str:
    found = re.search(r'__version__\s*=\s*"([^"]+)"', (folder / "comfyui_version.py").read_text())
    return found[1] if found else "of unknown version"


def _python(folder: Path, version: str, environment: Mapping[str, str]) -> Path:
    """COMFYUI_PYTHON, else a virtual environment in the host or beside it, else this Python."""
    if given := environment.get("COMFYUI_PYTHON"):
        return Path(given).expanduser()
    beside = folder.parent
    inside, outside = (".venv", "venv"), (f".venv-{version}", ".venv", "venv")
    for place in (*(folder / name for name in inside), *(beside / name for name in outside)):
        for python in (place / "bin" / "python", place / "Scripts" / "python.exe"):
            if python.is_file():
                return python
    return Path(sys.executable)


@dataclass(frozen=True)
class Server:
    """A running host: where it listens, its own folder, its log, its process."""

    host: Host
    url: str
    folder: Path
    log: Path
    start_seconds: float
    pid: int

    def processor_seconds(self) -> float:
        """What all its threads have computed so far. Reads /proc: on Linux only."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def models(self, kind: str) -> Path:
        """The folder of a kind of model file, "embeddings" or "loras"."""
        return self.folder / "models" / kind

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def running(host: Host, folder: Path, pack: Path | None = PACK) -> Iterator[Server]:
    """A server on the CPU with only this pack (none with pack=None), whose files all lie in `folder`.

    RuntimeError with the end of the log when it does not listen after five minutes.
    """
    (folder / "custom_nodes").mkdir(parents=True, exist_ok=True)
    if pack is not None and not (link := folder / "custom_nodes" / "comfyui-ice").exists():
        link.symlink_to(pack, target_is_directory=True)
    port = _free_port()
    log = folder / "server.log"
    command = [
        str(host.python), "main.py", "--cpu", "--base-directory", str(folder), "--port", str(port),
        "--disable-api-nodes", "--disable-auto-launch", "--database-url", "sqlite:///:memory:",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    for name in ("PYTHONPATH", "ICE_LIBRARY"):
        environment.pop(name, None)
    started = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=host.path, stdout=stream, stderr=subprocess.STDOUT, env=environment
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url, log)
        yield Server(host, url, folder, log, time.monotonic() - started, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ComfyUI ended with {process.returncode}:\n{_tail(log)}")
        try:
            with urllib.request.urlopen(f"{url}/system_stats", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"ComfyUI did not listen within {START_SECONDS:.0f} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
