"""The whole method from the command line: files, errors, interruption; models are fakes but for one test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from extractions import MARKED, scene
from fakes import FakeBackbone
from PIL import Image
from quick_drawing import draw_quickly

from ice_core.command_line import models
from ice_core.command_line.cli import main
from ice_core.errors import IceError
from ice_core.files.embeddings import load_concepts
from ice_core.files.images import load_image, resize_mask, save_png
from ice_core.files.lora import load_lora
from ice_core.localization.given import concepts_from_masks
from ice_core.run import finding, training
from ice_core.world.bundled import MODEL_FILE


def test_extract_with_masks_says_where_the_sheet_is(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*MARKED, "--out", "out", "--axes", "color"]) == 0
    out, err = capsys.readouterr()
    sheet = re.search(r"contact sheet: (.*)", out)
    assert sheet
    assert Path(sheet.group(1)) == files / "out" / "sheet.png"
    assert Path(sheet.group(1)).exists()
    assert "learning tokens 4/4" in err
    assert "\x1b" not in out + err
    assert "\r" not in out + err


def test_a_mask_of_another_size_is_resized_and_said(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_png(resize_mask(scene()[1][0], (48, 80)), files / "one.png")
    assert main([*MARKED, "--out", "out"]) == 0
    assert "note: mask one.png: resized to the picture's 160 x 96 pixels" in capsys.readouterr().err
    assert json.loads((files / "out" / "report.json").read_text())["notes"] == [
        "mask one.png: resized to the picture's 160 x 96 pixels"
    ]


def test_several_pictures_go_into_their_own_folders_and_results_are_counted_up(files: Path) -> None:
    (files / "more").mkdir()
    image, _ = scene()
    save_png(image, files / "more" / "squares.png")
    found = ["--labels", "ball", "--steps", "2", "--axes", "color", "--out", "out"]

    def whole(*_: object, **__: object) -> object:
        picture = _[1]
        return concepts_from_masks(picture, ["ball"], [torch.ones(picture.shape[1:])])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "concepts_from_labels", whole)
        assert main(["extract", "squares.png", "more/squares.png", *found]) == 0
        assert sorted(p.name for p in (files / "out").iterdir()) == ["squares", "squares-2"]
        assert main(["extract", "squares.png", *found[:-2]]) == 0
        assert main(["extract", "squares.png", *found[:-2]]) == 0
    assert sorted(p.name for p in (files / "ice-output").iterdir()) == ["squares", "squares-2"]


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = training.train, []

    def interrupted(*arguments: object, **named: object) -> Iterator[object]:
        for event in real(*arguments, **named):  # type: ignore[arg-type]
            yield event
            calls.append(event)
            if len(calls) == 25:
                raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert main([*MARKED[:-1], "30", "--out", "out"]) == 130
    hint = re.search(r"go on with: ice (extract --resume .*)", capsys.readouterr().err)
    assert hint
    assert load_concepts(files / "out").steps == 20
    monkeypatch.setattr(training, "train", real)
    assert main(hint.group(1).split()) == 0
    assert load_concepts(files / "out").steps == 30
    assert main([*hint.group(1).split(), "--steps", "5"]) == 2
    assert "leave out: steps" in capsys.readouterr().err


def test_compose_draws_from_two_extractions(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The bundled model has no color for a flat square: it is said.
    marked = [*MARKED, "--set", "ball.color=red", "--set", "cube.color=blue"]
    assert main([*marked, "--out", "one"]) == 0
    assert main([*marked, "--out", "two", "--seed", "5"]) == 0
    command = [
        "compose",
        "a photo of {b.cube.color} {a.ball}",
        "--concepts",
        "a=one",
        "--concepts",
        "b=two",
    ]
    assert main([*command, "--out", "both.png", "--count", "2"]) == 0
    assert load_image(files / "both.png").shape == (3, 64, 64)
    assert (files / "both-2.png").exists()
    before = (files / "both.png").read_bytes()
    capsys.readouterr()
    assert main([*command, "--out", "both.png"]) == 0
    assert capsys.readouterr().out.strip() == "both-3.png"
    assert (files / "both.png").read_bytes() == before
    assert main(["compose", "{ball.object}", "--concepts", "one", "--out", "single.png"]) == 0
    file = "style=one/embeddings/ball_color.safetensors"
    assert main(["compose", "a cube in {style}", "--concepts", file, "--out", "file.png"]) == 0
    assert main(["compose", "{a.ring.size}", *command[2:]]) == 2
    err = capsys.readouterr().err
    assert "{a.ball}, {a.ball.instance}" in err
    assert "{b.cube.color}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract"], "no picture was given"),
        (["extract", "absent.png"], "absent.png"),
        (["extract", "broken.png"], "cannot read the picture"),
        (["extract", "tiny.png"], "31 x 40 pixels"),
        ([*MARKED[:5], "zero.png", "two.png"], "all zero"),
        ([*MARKED[:5], "one.png"], "1 masks for 2 labels"),
        (["extract", "squares.png", "--refine-masks"], "--refine-masks redraws given masks"),
        ([*MARKED, "--refine-text"], "--refine-text is for a refinement"),
        ([*MARKED, "--method", "paper", "--reading-noises", "8"], "--reading-noises is for methods"),
        ([*MARKED, "--method", "anchored", "--reading-noises", "1"], "it must be 0, or 2 or more"),
        (["extract", "--resume", "absent", "--reading-noises", "0"], "leave out: reading_noises"),
        (["extract", "squares.png", "--body-parts"], "--body-parts"),
        ([*MARKED, "--axes", "colour blue"], "not one plain word"),
        ([*MARKED, "--axes", "object"], "another learned token"),
        ([*MARKED, "--steps", "1"], "needs 2 steps"),
        ([*MARKED[:3], "../evil,b", *MARKED[4:]], "leaves the output folder"),
        ([*MARKED, "--out", "squares.png/out"], "cannot write"),
        ([*MARKED, "--checkpoint", "absent.safetensors"], "absent.safetensors"),
        (["extract", "squares.png", "--resume", "absent"], "leave out: images"),
        (["extract", "--resume", "absent"], "no run to resume"),
        (["demo", "--resume", "absent"], "no run to resume"),
        (["compose", "{x}", "--concepts", "a=absent"], "absent"),
        (["compose", "{x}", "--concepts", "a=.", "--concepts", "a=."], "given before"),
        (["compose", "{x}", "--concepts", "a=.", "--out", "picture.jpg"], "not a PNG"),
        (["compose", "{x}", "--concepts", "a=."], "no learned concepts"),
        ([*MARKED, "--out", "o" * 300], "cannot write"),
        ([*MARKED, "--out", "loop/out"], "cannot write"),
        (["extract", "p" * 300], "there is no file"),
        (["extract", "--resume", "r" * 300], "no run to resume"),
        (["compose", "{x}", "--concepts", "a=" + "c" * 300], "there is no folder or file"),
        (["compose", "{x}", "--concepts", "a=.", "--out", "o" * 252 + ".png"], "256 bytes long"),
        (["compose", "{x}", "--concepts", "a=.", "--out", "loop/both.png"], "cannot write"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (files / "broken.png").write_bytes((files / "squares.png").read_bytes()[:100])
    Image.new("RGB", (31, 40)).save(files / "tiny.png")
    Image.new("L", (160, 96)).save(files / "zero.png")
    (files / "loop").symlink_to(files / "loop")
    before = sorted(files.rglob("*"))
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("ice: ")
    assert err.count("\n") == 1
    assert sorted(files.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["demo", "--seed", "-1"],
        ["demo", "--steps", "0"],
        ["extract", "a.png", "--axes", "a,,b"],
        ["extract", "a.png", "--clip", ""],
    ],
)
def test_arguments_that_cannot_be_parsed_exit_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: ice" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["meta", "hpu", "privateuseone", "cuda:99", "abacus"])
def test_a_device_that_cannot_compute_is_refused(device: str) -> None:
    with pytest.raises(IceError, match="cannot be used"):
        models.open_backbone(None, device)


def test_help_and_argument_errors_do_not_wait_for_torch() -> None:
    script = (
        "import sys, ice_core.command_line.cli as cli\n"
        "assert cli.main(['extract', 'absent.png']) == 2\n"
        "try: cli.main(['extract', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "--checkpoint" in done.stdout


@pytest.mark.skipif(not MODEL_FILE.is_file(), reason="the bundled weights are not there")
def test_the_demo_runs_end_to_end_on_the_bundled_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw_quickly(monkeypatch)
    assert main(["demo", "--seed", "1", "--steps", "4", "--out", str(tmp_path / "demo")]) == 0
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["concepts"]
    assert (tmp_path / "demo" / report["pictures"]["sheet"]).exists()
    assert "contact sheet: " in capsys.readouterr().out
    key = report["concepts"][0]["key"]
    target = tmp_path / "composed.png"
    prompt = f"a photo of a {{{key}}}"
    assert main(["compose", prompt, "--concepts", str(tmp_path / "demo"), "--out", str(target)]) == 0
    assert load_image(target).shape == (3, 128, 128)


def test_the_command_line_refines_and_composes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*MARKED, "--out", "out", "--refine", "4", "--refine-text"]) == 0
    adapted = {name.split("_")[1] for name in load_lora(Path("out/lora.safetensors")).up}
    assert adapted == {"unet", "te"}
    out, err = capsys.readouterr()
    assert f"LoRA:          {files / 'out' / 'lora.safetensors'}" in out
    assert "refining weights 4/4" in err
    command = ["compose", "a {ball.object}", "--concepts", "out", "--seed", "3"]
    assert main([*command, "--out", "plain.png"]) == 0
    assert main([*command, "--out", "refined.png", "--lora", "out/lora.safetensors"]) == 0
    assert (files / "plain.png").read_bytes() != (files / "refined.png").read_bytes()
    with Image.open(files / "refined.png") as picture:
        assert picture.info["lora"] == "lora.safetensors"
    capsys.readouterr()
    for arguments, message in (
        ([*command, "--lora", "absent.safetensors"], "there is no file absent.safetensors"),
        ([*command, "--lora", "out/embeddings/ball_color.safetensors"], "only LoRAs of the U-Net"),
        (["extract", "--resume", "out", "--refine", "5"], "leave out: refine"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_a_run_goes_on_in_the_precision_it_was_started_in(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str | None, bool]] = []

    def fake(
        checkpoint: Path | None, device: str, dtype: str | None = None, gradient_checkpointing: bool = False
    ) -> FakeBackbone:
        opened.append((dtype, gradient_checkpointing))
        return FakeBackbone()

    monkeypatch.setattr(models, "open_backbone", fake)
    options = ["--dtype", "bfloat16", "--gradient-checkpointing", "--out", "out"]
    assert main([*MARKED, *options]) == 0
    assert main(["extract", "--resume", "out"]) == 0
    assert opened == [("bfloat16", True), ("bfloat16", False)]
    assert main(["extract", "--resume", "out", "--dtype", "float16"]) == 2
    assert "leave out: dtype" in capsys.readouterr().err
