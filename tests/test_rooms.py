"""Every import points down: a room uses only the rooms below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT: Mapping[str, tuple[str, ...]] = {
    "ice_core.errors": (),
    "ice_core.version": (),
    "ice_core.tensor_files": ("ice_core.errors",),
    "ice_core.model": ("ice_core.tensor_files",),
    "ice_core.standalone": ("ice_core.model",),
    "ice_core.concepts": ("ice_core.model",),
    "ice_core.localization.vocabulary": (),
    "ice_core.localization.retrieval": ("ice_core.concepts", "ice_core.localization.vocabulary"),
    "ice_core.localization.segmentation": ("ice_core.concepts",),
    "ice_core.localization": ("ice_core.localization.retrieval", "ice_core.localization.segmentation"),
    "ice_core.attributes": ("ice_core.localization.retrieval",),
    "ice_core.evaluation": ("ice_core.attributes",),
    "ice_core.training": ("ice_core.attributes",),
    "ice_core.composition": ("ice_core.concepts",),
    "ice_core.files": ("ice_core.composition", "ice_core.version"),
    "ice_core.figures": (
        "ice_core.standalone", "ice_core.localization", "ice_core.training", "ice_core.composition",
        "ice_core.evaluation", "ice_core.files",
    ),
    "ice_core.run": ("ice_core.figures",),
    "ice_core.library": ("ice_core.run",),
    "ice_core.world": ("ice_core.standalone", "ice_core.attributes"),
    "ice_core": ("ice_core.library", "ice_core.world"),
    "ice_core.command_line": ("ice_core",),
    "nodes.host": ("ice_core.model", "the host"),
    "nodes": ("ice_core", "nodes.host", "the host"),
    "__init__": ("nodes", "the host"),
    "tools": ("ice_core",),
    "benchmarks": ("ice_core", "tools"),
}  # fmt: skip
"""Room -> the rooms right below it; what those may import, it may import too."""

HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server"}
"""What ComfyUI's own modules are called."""


def room_of(module: str) -> str | None:
    """The innermost room that a module lies in; None for other people's packages."""
    if module.split(".")[0] in HOST:
        return "the host"
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if (name := ".".join(parts[:end])) in MAY_IMPORT:
            return name
    return None


@cache
def below(room: str) -> frozenset[str]:
    """The room and all that it may import."""
    return frozenset({room}).union(*(below(one) for one in MAY_IMPORT.get(room, ())))


def imports(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """Full names of what a file of a package imports, at its head or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *((node.module,) if node.module else ())))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def pointing_up(module: str, source: str, package: tuple[str, ...]) -> list[str]:
    """What a module imports from rooms that are not below its own."""
    room = room_of(module)
    assert room is not None, f"{module} lies in no room"
    return sorted(name for name in imports(source, package) if room_of(name) not in {None, *below(room)})


def sources() -> list[Path]:
    folders = ("ice_core", "nodes", "tools", "benchmarks")
    return [ROOT / "__init__.py", *sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_to_rooms_below(path: Path) -> None:
    inside = path.relative_to(ROOT)
    module = ".".join(inside.with_suffix("").parts)
    assert not pointing_up(module, path.read_text(encoding="utf-8"), inside.parent.parts)


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("ice_core.model.lora", "from ice_core.concepts import unit", ["ice_core.concepts.unit"]),
        ("ice_core.files.lora", "def f():\n    from ice_core import run", ["ice_core.run"]),
        ("ice_core.training.trainer", "from ..files import paths", ["ice_core.files.paths"]),
        ("ice_core.run.pipeline", "import comfy.utils", ["comfy.utils"]),
        ("nodes.host.unet", "from .. import graph", ["nodes.graph"]),
        ("nodes.trainer", "from .host import unet\nfrom ice_core.run import report\nimport comfy", []),
        ("ice_core.run.pipeline", "import torch\nfrom ice_core.model.lora import Lora", []),
    ],
)
def test_an_arrow_up_is_seen(module: str, source: str, wrong: list[str]) -> None:
    assert pointing_up(module, source, tuple(module.split(".")[:-1])) == wrong
