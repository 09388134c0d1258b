"""Names that a careless user gives: pictures, labels and prompts of any characters and any length."""

from __future__ import annotations

import json
from pathlib import Path

from extractions import MARKED

from ice_core.command_line.cli import main

QUICK = [*MARKED[:-1], "2", "--axes", "color", "--out", "out"]


def test_a_line_break_in_a_label_or_in_the_name_of_the_picture_is_a_space(files: Path) -> None:
    (files / "squares.png").rename(files / "two\nsquares.png")
    assert main([QUICK[0], "two\nsquares.png", *QUICK[2:3], "red\nball,cube", *QUICK[4:]]) == 0
    report = json.loads((files / "out" / "report.json").read_text())
    assert report["title"] == "two squares.png"
    assert [(c["key"], c["label"]) for c in report["concepts"]] == [
        ("red-ball", "red ball"),
        ("cube", "cube"),
    ]
