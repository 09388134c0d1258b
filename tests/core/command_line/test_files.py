"""`ice inspect` and `ice convert`: what they print and write, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import FakeBackbone
from loras import random_lora
from PIL import Image
from safetensors.torch import save_file
from tokens import learned

from ice_core.command_line.cli import main
from ice_core.concepts import Candidate, Concept, Reading
from ice_core.files.concept_set import SavedConcepts, save_concept_set
from ice_core.files.embeddings import load_concepts, save_concepts
from ice_core.files.images import as_data_uri, jpeg_bytes
from ice_core.files.lora import save_lora

PICTURE = jpeg_bytes(torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with a file of each kind."""
    monkeypatch.chdir(tmp_path)
    reading = Reading("color", (Candidate("red", 0.97),), "clip")
    base = learned(("ball", "ball-2"))
    first = replace(base.concepts[0], readings={"color": reading, "material": replace(reading, fits=False)})
    concepts = replace(base, concepts=(first, base.concepts[1]))
    mask = torch.ones(6, 9, dtype=torch.bool)
    saved = SavedConcepts(
        concepts, (Concept("ball", "ball", mask, 1.0),), mask, {"training": {"method": "words"}},
        "a picture.png", thumbnails={"ball": PICTURE}, sheet=PICTURE, picture=PICTURE,
    )  # fmt: skip
    save_concept_set(saved, tmp_path / "set.safetensors")
    save_concepts(concepts, tmp_path / "run", thumbnails={"ball.color": as_data_uri(PICTURE)})
    save_lora(random_lora(FakeBackbone()), tmp_path / "lora.safetensors", concepts)
    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}}, tmp_path / "cat.pt")
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["inspect", *arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_concept_set_is_told_in_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "set.safetensors")
    for part in (
        "set.safetensors: concept set",
        "made with fake, stable-diffusion-v1, ffffffffffff",
        "objects ball, ball-2 (ball)",
        "axes color, material",
        "seed 7 steps 40",
        "method words",
        "masks ball at 9 x 6",
        "1 thumbnails, sheet, picture",
        "read of ball color red 97%, material -",
        "{ball} clip_l 4 x 16",
        "{ball.color} clip_l 1 x 16",
    ):
        assert part in text, part


def test_folders_embeddings_of_all_makers_and_loras_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "run: folder of embeddings" in shown(capsys, "run")
    assert "fits Stable Diffusion 1.x (clip_l x 768)" in shown(capsys, "cat.pt")
    assert "{cat} clip_l 2 x 768" in shown(capsys, "cat.pt")
    text = shown(capsys, "lora.safetensors", "run/ball_color.safetensors")
    assert "lora.safetensors: LoRA" in text
    assert "layers 4 rank" in text
    assert "run/ball_color.safetensors: embedding" in text
    assert "role color" in text


def test_programs_get_json_and_the_thumbnail_is_written_beside(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["set.safetensors", "run", "lora.safetensors", "cat.pt"]
    assert main(["inspect", "--json", *files]) == 0
    found = json.loads(capsys.readouterr().out)
    kinds = ["concept set", "folder of embeddings", "LoRA", "embedding"]
    assert [(one["path"], one["kind"]) for one in found] == list(zip(files, kinds, strict=True))
    assert found[0]["tokens"]["ball"] == {"clip_l": [4, 16]}
    assert found[0]["readings"] == {"ball": {"color": "red 97%", "material": "-"}}
    assert [one["thumbnail"] for one in found] == [True, False, False, False]
    for name in ("t.jpg", "t-2.jpg"):
        assert main(["inspect", "set.safetensors", "--thumbnail", "t.jpg"]) == 0
        assert f"thumbnail: {name}" in capsys.readouterr().out
        assert Image.open(folder / name).size == (60, 40)


def test_bad_files_are_refused_by_both(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cut.safetensors").write_bytes((folder / "set.safetensors").read_bytes()[:300])
    torch.save({"x": Path("code")}, folder / "evil.pt")
    save_file({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, folder / "weights.safetensors")
    (folder / "note.txt").write_text("hello")
    for name, message in (
        ("cut.safetensors", "cannot read cut.safetensors"),
        ("evil.pt", "safely"),
        ("weights.safetensors", "not a textual inversion"),
        ("note.txt", "give a .safetensors, .pt or .bin"),
        ("absent.pt", "there is no file or folder absent.pt"),
    ):
        for command in (["inspect", name], ["convert", name, "--out", "out.safetensors"]):
            assert main(command) == 2
            assert message in capsys.readouterr().err
    assert main(["inspect", "run", "set.safetensors", "--thumbnail", "t.jpg"]) == 2
    assert main(["inspect", "cat.pt", "--thumbnail", "t.jpg"]) == 2
    assert "has no thumbnail" in capsys.readouterr().err
    assert not (folder / "out.safetensors").exists()
    assert not (folder / "t.jpg").exists()


def test_what_a_file_says_of_itself_does_not_move_the_cursor(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = {"modelspec.title": "\x1b[2J[red]bold\x07", "ice.key": "a", "ice.label": "\x1b]0;x\x07"}
    save_file({"emb_params": torch.zeros(1, 768)}, folder / "a.safetensors", header)
    text = shown(capsys, "a.safetensors")
    assert "[2J[red]bold" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_convert_splits_joins_and_says_what_it_wrote(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "set.safetensors", "--out", "split"]) == 0
    written = capsys.readouterr().out.split()
    assert "split/ball-2_color.safetensors" in written
    assert main(["convert", "split", "--out", "joined.safetensors"]) == 0
    assert capsys.readouterr().out.strip() == "joined.safetensors"
    assert load_concepts("joined.safetensors").tokens.keys() == learned(("ball", "ball-2")).tokens.keys()
    assert main(["convert", "cat.pt", "--out", "cat.safetensors"]) == 0
    assert (folder / "cat.safetensors").is_file()
