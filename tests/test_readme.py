"""What the README and docs show runs: every Python and shell block, with few steps, on the bundled model."""

from __future__ import annotations

import re
import runpy
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from quick_drawing import draw_quickly

from ice_core.command_line.cli import main
from ice_core.files.images import save_png
from ice_core.world.bundled import MODEL_FILE
from ice_core.world.renderer import render
from ice_core.world.scenes import Scene, SceneObject

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^>]+) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """page, line: where it begins; reason: why it cannot run here, "" if it can."""

    page: str
    line: int
    language: str
    code: str
    reason: str


def blocks() -> list[Block]:
    return [
        Block(page.name, text[: m.start("code")].count("\n") + 1, m["language"], m["code"], m["reason"] or "")
        for page, text in ((page, page.read_text(encoding="utf-8")) for page in PAGES)
        for m in BLOCK.finditer(text)
    ]


def shown(language: str) -> list[object]:
    """The blocks of a language as parameters of a test."""
    return [
        pytest.param(
            block,
            id=f"{block.page}, line {block.line}",
            marks=pytest.mark.skipif(
                bool(block.reason), reason=f"{block.page}, line {block.line}: {block.reason}"
            ),
        )
        for block in blocks()
        if block.language == language
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the files that the pages name; the bundled model stands for a large one."""
    if not MODEL_FILE.is_file():
        pytest.skip("the bundled weights are not there")
    ball = SceneObject("ball", "red", "rubber", "plain", 0.0, 0.0, 1.0, 0.0)
    rendered = render([Scene((ball,), "grass", 0)])
    for picture in ("scene.png", "photo.jpg", "room.jpg", "desk.jpg"):
        save_png(rendered.images[0], tmp_path / picture)
    save_png(rendered.images[0], tmp_path / "photos" / "one.jpg")
    for mask in ("vase.png", "chair.png", "a.png", "b.png"):
        save_png(rendered.masks[0, 0], tmp_path / mask)
    (tmp_path / "sd15.safetensors").symlink_to(MODEL_FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw_quickly(monkeypatch)
    return tmp_path


def quick(arguments: list[str]) -> list[str]:
    """The same command with few steps."""
    if arguments[0] in ("compose", "inspect", "convert", "library") or "words" in arguments:
        return arguments
    if "--refine" in arguments:
        arguments = [*arguments]
        arguments[arguments.index("--refine") + 1] = "1"
    return [*arguments, "--steps", "2"]


def test_every_block_says_what_it_is() -> None:
    assert {block.language for block in blocks()} == {"sh", "python", "bibtex"}
    assert sum(page.read_text(encoding="utf-8").count("```") for page in PAGES) == 2 * len(blocks())


@pytest.mark.parametrize("block", shown("sh"))
def test_shell_blocks_run(block: Block, folder: Path) -> None:
    for line in block.code.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "ice", f"only `ice` runs here; say above the block why {program} does not"
        assert main(quick(arguments)) == 0, line


@pytest.mark.parametrize("block", shown("python"))
def test_python_blocks_run(block: Block, folder: Path) -> None:
    code = re.sub(r"\bsteps=\d+", "steps=2", block.code)
    saved = re.findall(r"save\(\"([^\"]+)\"\)", code)
    assert saved, "nothing is saved: an example should leave something to look at"
    example = folder / f"{Path(block.page).stem}_line_{block.line}.py"
    example.write_text(code, encoding="utf-8")
    runpy.run_path(str(example))
    assert [name for name in saved if not (folder / name).is_file()] == []
