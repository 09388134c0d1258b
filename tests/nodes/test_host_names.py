"""Every name of the host that the nodes use is there, in every host that is supported."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.comfy_host import PACK, Host, find_hosts

ROOTS = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "server")
PROBE = """
import importlib, sys
names = sys.argv[1].split(",")
sys.argv = sys.argv[:1] + ["--cpu"]
sys.path.insert(0, ".")
import comfy.options
comfy.options.enable_args_parsing()
def there(name):
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False
print(",".join(name for name in names if not there(name)))
"""


class Used(ast.NodeVisitor):
    """Dotted names of the host that a file uses: imported ones, and what is taken off them."""

    def __init__(self) -> None:
        self.aliases: dict[str, str] = {}
        self.names: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] in ROOTS:
                self.names.add(alias.name)
                first = alias.name.split(".")[0]
                self.aliases[alias.asname or first] = alias.name if alias.asname else first

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0 and node.module and node.module.split(".")[0] in ROOTS:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                self.names.add(name)
                self.aliases[alias.asname or alias.name] = name

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts, at = [node.attr], node.value
        while isinstance(at, ast.Attribute):
            parts.append(at.attr)
            at = at.value
        if isinstance(at, ast.Name) and at.id in self.aliases:
            self.names.add(".".join((self.aliases[at.id], *reversed(parts))))
        self.generic_visit(node)


def used_names(sources: Iterator[Path]) -> list[str]:
    names: set[str] = set()
    for path in sources:
        visitor = Used()
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        names |= visitor.names
    # Importing the server needs all of a running host; the tests of a real one use it.
    return sorted(name for name in names if name.split(".")[0] != "server")


def test_names_are_read_off_imports_and_what_is_taken_off_them() -> None:
    visitor = Used()
    visitor.visit(ast.parse("import comfy.utils\nfrom comfy import sd as s\ncomfy.utils.Bar(1).go\ns.VAE"))
    assert visitor.names == {"comfy.utils", "comfy.sd", "comfy.utils.Bar", "comfy.sd.VAE"}


@pytest.mark.host
@pytest.mark.parametrize("host", find_hosts() or [None], ids=lambda host: host.version if host else "no host")
def test_every_used_name_is_there(host: Host | None) -> None:
    if host is None:
        pytest.skip("there is no ComfyUI: set COMFYUI_PATH to its folder")
    if (problem := host.problem()) is not None:
        pytest.skip(problem)
    names = used_names(path for path in (PACK / "nodes").rglob("*.py"))
    assert len(names) > 20
    command = [str(host.python), "-c", PROBE, ",".join(names)]
    done = subprocess.run(command, cwd=host.path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1:] in ([], [""]), f"not in ComfyUI {host.version}"
