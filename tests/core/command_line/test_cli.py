"""The whole method from the command line: files, errors, interruption; models are fakes but for one test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fakes import FakeBackbone
from PIL import Image
from safetensors.torch import load_file

from ice_core.command_line import commands
from ice_core.command_line.cli import main
from ice_core.errors import IceError
from ice_core.files.embeddings import load_concepts
from ice_core.files.images import load_image, resize_mask, save_png
from ice_core.localization.loop import LocalizationConfig
from ice_core.model.sampling import SamplingConfig
from ice_core.run import pipeline
from ice_core.run.pipeline import Progress, extract, resume
from ice_core.run.settings import ExtractionSettings
from ice_core.training.config import TrainingConfig
from ice_core.world.bundled import MODEL_FILE

SETTINGS = ExtractionSettings(
    TrainingConfig(axes=("color", "material"), steps=8, seed=3, snapshot_every=2, alignment_iterations=5),
    LocalizationConfig(max_rounds=2),
    SamplingConfig(steps=2),
)


@dataclass(frozen=True)
class Named:
    label: str


class Names:
    """A retriever that knows one word."""

    def retrieve(self, image: torch.Tensor, used: tuple[str, ...] = ()) -> list[Named]:
        return [] if used else [Named("ball")]


def scene(height: int = 96, width: int = 160) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A red and a blue square on grey, with their masks."""
    image = torch.full((3, height, width), 128 / 255)
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 16:64, 16:64] = True
    masks[1, 40:88, 96:144] = True
    image[:, masks[0]] = torch.tensor([[1.0], [0], [0]])
    image[:, masks[1]] = torch.tensor([[0.0], [0], [1]])
    return image, list(masks)


def run(out: Path, listener: pipeline.Listener | None = None) -> None:
    image, masks = scene()
    extract(FakeBackbone(), None, image, out, SETTINGS, ["ball", "ball"], masks, "squares", listener=listener)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture and masks, and fakes in place of the models."""
    image, masks = scene()
    save_png(image, tmp_path / "squares.png")
    for name, mask in zip(("one", "two"), masks, strict=True):
        save_png(mask, tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "_backbone", lambda *_: FakeBackbone())
    monkeypatch.setattr(commands, "_retriever", lambda *_: (Names(), ["named by a fake"]))
    return tmp_path


MARKED = ["extract", "squares.png", "--labels", "ball,cube", "--masks", "one.png", "two.png", "--steps", "4"]


def test_an_extraction_writes_everything_and_the_report_says_where(tmp_path: Path) -> None:
    seen: list[Progress] = []
    run(tmp_path / "out", seen.append)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [c["key"] for c in report["concepts"]] == ["ball", "ball-2"]
    first = report["concepts"][0]
    assert (first["label"], first["score"]) == ("ball", 1)
    left, top, right, bottom = first["box"]
    assert abs(left - 16) + abs(top - 16) + abs(right - 64) + abs(bottom - 64) <= 8
    assert first["area"] == pytest.approx(48 * 48, rel=0.1)
    assert first["prompts"]["color"] == "a {ball.color} color"
    assert report["image_size"] == [160, 96]
    assert report["working_size"] == [80, 48]
    assert set(report["seconds"]) == {"localization", "training", "pictures", "writing"}
    assert report["peak_memory_mib"] is None or report["peak_memory_mib"] > 50
    assert report["settings"]["training"]["steps"] == 8
    named = [*report["pictures"].values()]
    for concept in report["concepts"]:
        named += [concept["mask"], concept["row"], *concept["embeddings"].values()]
    assert len(named) == 4 + 2 * (2 + 4)
    for name in named:
        assert (tmp_path / "out" / name).stat().st_size > 50, name
    assert not list(tmp_path.rglob("*.part"))
    with Image.open(tmp_path / "out" / "masks" / "ball.png") as mask:
        assert mask.size == (160, 96)
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages == ["finding objects", "learning tokens", "drawing pictures", "writing files"]
    assert max(p.done for p in seen if p.stage == "learning tokens") == 8


def test_a_run_repeats_to_the_bit_under_a_seed(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b")
    for path in sorted((tmp_path / "a" / "embeddings").iterdir()):
        twin = tmp_path / "b" / "embeddings" / path.name
        assert torch.equal(load_file(path)["emb_params"], load_file(twin)["emb_params"])
    assert (tmp_path / "a" / "rows" / "ball.png").read_bytes() == (
        tmp_path / "b" / "rows" / "ball.png"
    ).read_bytes()


@pytest.mark.parametrize("step", [3, 6])
def test_an_interrupted_run_goes_on_to_the_same_numbers(tmp_path: Path, step: int) -> None:
    run(tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.stage == "learning tokens" and progress.done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop)
    assert not (tmp_path / "cut" / "report.json").exists()
    so_far = load_concepts(tmp_path / "cut")
    assert so_far.steps == step - step % 2 if step % 2 else step - 2
    assert list(so_far.concepts[0].intrinsics) == ["color", "material"]
    resume(FakeBackbone(), tmp_path / "cut")
    whole, cut = load_concepts(tmp_path / "whole"), load_concepts(tmp_path / "cut")
    assert cut.steps == 8
    for name, token in whole.tokens.items():
        assert torch.equal(token.rows["clip_l"], cut.tokens[name].rows["clip_l"]), name
    histories = [json.loads((tmp_path / n / "history.json").read_text())["losses"] for n in ("whole", "cut")]
    assert histories[0] == histories[1]
    rows = [(tmp_path / n / "rows" / "ball.png").read_bytes() for n in ("whole", "cut")]
    assert rows[0] == rows[1]


def test_an_interruption_while_pictures_are_drawn_keeps_the_training(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "drawing pictures":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop)
    assert load_concepts(tmp_path / "cut").steps == 8
    seen: list[Progress] = []
    resume(FakeBackbone(), tmp_path / "cut", seen.append)
    assert "learning tokens" not in {p.stage for p in seen}
    assert (tmp_path / "cut" / "sheet.png").exists()


def test_nothing_is_written_before_objects_are_found(tmp_path: Path) -> None:
    class Nothing:
        def retrieve(self, image: torch.Tensor, used: tuple[str, ...] = ()) -> list[Named]:
            return []

    with pytest.raises(IceError, match="no object was found"):
        extract(FakeBackbone(), Nothing(), scene()[0], tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", [["../evil", "b"], ["a,b", "c"], ["", "b"]])
def test_labels_that_leave_the_folder_are_refused_before_any_work(tmp_path: Path, labels: list[str]) -> None:
    image, masks = scene()
    with pytest.raises(IceError):
        extract(FakeBackbone(), None, image, tmp_path / "out", SETTINGS, labels, masks)
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_overwritten_and_not_resumed_with_another_model(tmp_path: Path) -> None:
    run(tmp_path / "out")
    with pytest.raises(IceError, match="holds a run already"):
        run(tmp_path / "out")
    other = FakeBackbone()
    other.fingerprint = "0" * 64
    with pytest.raises(IceError, match="started with fake"):
        resume(other, tmp_path / "out")
    with pytest.raises(IceError, match="no run to resume"):
        resume(FakeBackbone(), tmp_path / "absent")
    (tmp_path / "out" / "run.json").write_text('{"title": "cut')
    with pytest.raises(IceError, match="cannot be resumed"):
        resume(FakeBackbone(), tmp_path / "out")


def test_the_settings_survive_a_file(tmp_path: Path) -> None:
    from dataclasses import asdict

    assert ExtractionSettings.from_plain(json.loads(json.dumps(asdict(SETTINGS)))) == SETTINGS
    with pytest.raises(IceError, match="another version"):
        ExtractionSettings.from_plain({"training": {"stpes": 3}})


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
        return pipeline.concepts_from_masks(picture, ["ball"], [torch.ones(picture.shape[1:])])  # type: ignore[attr-defined]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "concepts_from_labels", whole)
        assert main(["extract", "squares.png", "more/squares.png", *found]) == 0
        assert sorted(p.name for p in (files / "out").iterdir()) == ["squares", "squares-2"]
        assert main(["extract", "squares.png", *found[:-2]]) == 0
        assert main(["extract", "squares.png", *found[:-2]]) == 0
    assert sorted(p.name for p in (files / "ice-output").iterdir()) == ["squares", "squares-2"]


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = pipeline.train, []

    def interrupted(*arguments: object, **named: object) -> Iterator[object]:
        for event in real(*arguments, **named):  # type: ignore[arg-type]
            yield event
            calls.append(event)
            if len(calls) == 25:
                raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "train", interrupted)
    assert main([*MARKED[:-1], "30", "--out", "out"]) == 130
    hint = re.search(r"go on with: ice (extract --resume .*)", capsys.readouterr().err)
    assert hint
    assert load_concepts(files / "out").steps == 20
    monkeypatch.setattr(pipeline, "train", real)
    assert main(hint.group(1).split()) == 0
    assert load_concepts(files / "out").steps == 30
    assert main([*hint.group(1).split(), "--steps", "5"]) == 2
    assert "leave out: steps" in capsys.readouterr().err


def test_compose_draws_from_two_extractions(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*MARKED, "--out", "one"]) == 0
    assert main([*MARKED, "--out", "two", "--seed", "5"]) == 0
    command = [
        "compose",
        "a photo of {a.ball.object} {b.cube.color}",
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
    assert main(["compose", "{a.ball.size}", *command[2:]]) == 2
    err = capsys.readouterr().err
    assert "{a.ball.object}" in err
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
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (files / "broken.png").write_bytes((files / "squares.png").read_bytes()[:100])
    Image.new("RGB", (31, 40)).save(files / "tiny.png")
    Image.new("L", (160, 96)).save(files / "zero.png")
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
    ],
)
def test_arguments_that_cannot_be_parsed_exit_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: ice" in capsys.readouterr().err


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
    assert main(["demo", "--seed", "1", "--steps", "4", "--out", str(tmp_path / "demo")]) == 0
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["concepts"]
    assert (tmp_path / "demo" / report["pictures"]["sheet"]).exists()
    assert "contact sheet: " in capsys.readouterr().out
    key = report["concepts"][0]["key"]
    target = tmp_path / "composed.png"
    prompt = f"a photo of {{{key}.object}} {{{key}.color}}"
    assert main(["compose", prompt, "--concepts", str(tmp_path / "demo"), "--out", str(target)]) == 0
    assert load_image(target).shape == (3, 128, 128)
