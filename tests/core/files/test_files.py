"""Files of learned tokens: safe names, whole or not at all, and read back as they were."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import WIDTH, FakeBackbone
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokens import learned, token

from ice_core.composition import parse_prompt
from ice_core.concepts import LearnedConcepts
from ice_core.errors import IceError
from ice_core.files import atomic_write, check_writable, free_folder, free_path, safe_path
from ice_core.files.embeddings import (
    check_names,
    load_concepts,
    open_concepts,
    save_concepts,
    save_token,
)
from ice_core.files.token_file import load_token
from ice_core.model.backbone import Token

DATE = "2026-01-02T03:04:05+00:00"


def test_a_crash_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    path = atomic_write(tmp_path / "a.txt", "old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, "new and longer")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_an_ice_error_and_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = atomic_write(tmp_path / "a.txt", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IceError, match="No space left"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_writing_makes_missing_folders_and_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.bin"
    atomic_write(path, b"one and more")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../a",
        "a/../../b",
        "/etc/passwd",
        "C:\\a",
        "c:a",
        "a\\..\\b",
        "a\0b",
        "a b",
        "a,b",
        "a/",
        "a\nb",
        "a" * 241,
        "con",
        "ice/AUX.png",
        "com\u00b9.safetensors",
    ],
)
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(IceError, match="name"):
        safe_path(tmp_path, name)


def test_an_empty_name_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(IceError, match="the name is empty"):
        safe_path(tmp_path, "")


def test_safe_names_and_subfolders_are_taken(tmp_path: Path) -> None:
    assert safe_path(tmp_path, "ball-2_color.safetensors") == tmp_path / "ball-2_color.safetensors"
    assert safe_path(tmp_path, "ice/vase_colour") == tmp_path / "ice" / "vase_colour"


def test_a_name_as_long_as_can_be_is_written(tmp_path: Path) -> None:
    assert atomic_write(safe_path(tmp_path, "a" * 240), b"x").read_bytes() == b"x"


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(IceError, match="link"):
        safe_path(tmp_path / "in", "out/ball")


def test_taken_names_are_counted_up(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "a-2.png").touch()
    assert free_path(tmp_path / "a.png") == tmp_path / "a-3.png"
    assert free_path(tmp_path / "b.png") == tmp_path / "b.png"


def test_a_folder_is_taken_by_results_but_not_by_other_files(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").touch()
    assert free_folder(tmp_path / "demo", ["run.json"]) == tmp_path / "demo"
    (tmp_path / "demo" / "run.json").touch()
    assert free_folder(tmp_path / "demo", ["run.json"]) == tmp_path / "demo-2"
    assert free_folder(tmp_path / "demo", ["run.json"], [tmp_path / "demo-2"]) == tmp_path / "demo-3"


def test_checking_a_folder_makes_nothing_and_tells_when_it_cannot_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deeper")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(IceError, match="cannot write"):
        check_writable(tmp_path / "file" / "folder")


def test_a_token_of_one_encoder_is_one_tensor_with_the_model_spec(tmp_path: Path) -> None:
    item = token("ball.color", 768, rows=2)
    path = save_token(
        item, tmp_path / "ball_color.safetensors", "stable-diffusion-v1", DATE, thumbnail="data:x"
    )
    assert list(load_file(path)) == ["emb_params"]
    assert load_file(path)["emb_params"].shape == (2, 768)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert header["modelspec.sai_model_spec"] == "1.0.0"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    assert header["modelspec.date"] == DATE
    assert header["modelspec.trigger_phrase"] == "embedding:ball_color"
    assert header["modelspec.thumbnail"] == "data:x"


def test_a_token_of_two_encoders_keeps_both_keys(tmp_path: Path) -> None:
    rows = {"clip_l": torch.randn(1, 768), "clip_g": torch.randn(1, 1280)}
    path = save_token(Token("x", rows), tmp_path / "x.safetensors", "stable-diffusion-xl-v1-base", DATE)
    assert sorted(load_file(path)) == ["clip_g", "clip_l"]
    assert {k: v.shape for k, v in load_token(path).rows.items()} == {k: v.shape for k, v in rows.items()}


def test_concepts_come_back_from_their_files_in_order_and_to_the_bit(tmp_path: Path) -> None:
    before = learned()
    files = save_concepts(before, tmp_path / "run" / "embeddings", DATE)
    assert files["ball-2.color"].name == "ball-2_color.safetensors"
    assert files["ball.object"].name == "ball_object.safetensors"
    assert files["ball-2"].name == "ball-2.safetensors"
    for folder in (tmp_path / "run" / "embeddings", tmp_path / "run"):
        after = load_concepts(folder)
        assert [c.key for c in after.concepts] == ["zebra", "ball", "ball-2"]
        assert [c.label for c in after.concepts] == ["zebra", "ball", "ball"]
        assert (after.axes, after.seed, after.steps) == (before.axes, 7, 40)
        assert (after.base_name, after.base_fingerprint) == ("fake", "f" * 64)
        assert list(after.tokens) == list(before.tokens)
        for name, item in before.tokens.items():
            assert torch.equal(after.tokens[name].rows["clip_l"], item.rows["clip_l"])


def test_saving_twice_counts_the_folder_up_unless_told_to_replace(tmp_path: Path) -> None:
    save_concepts(learned(), tmp_path / "e")
    assert {p.parent for p in save_concepts(learned(), tmp_path / "e").values()} == {tmp_path / "e-2"}
    assert {p.parent for p in save_concepts(learned(), tmp_path / "e", replace=True).values()} == {
        tmp_path / "e"
    }


@pytest.mark.parametrize("key", ["../evil", "a/b", "a,b", "nul\0", "/abs"])
def test_keys_that_leave_the_folder_are_refused_and_nothing_is_written(tmp_path: Path, key: str) -> None:
    with pytest.raises(IceError, match="name"):
        save_concepts(learned(("ball", key)), tmp_path / "out")
    with pytest.raises(IceError, match="name"):
        check_names(["ball"], [key])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keys", "axes"),
    [
        (("ball",), ("Color", "color")),
        (("ball",), ("Object",)),
        (("ball", "ball_x"), ("color", "x_color")),
        (("ball", "Ball_Color"), ("color",)),
        (("caf\u00e9", "cafe\u0301"), ("color",)),
    ],
)
def test_tokens_that_would_share_a_file_on_some_disk_are_refused(
    keys: tuple[str, ...], axes: tuple[str, ...]
) -> None:
    with pytest.raises(IceError, match="share a file"):
        check_names(keys, axes)


def test_missing_mixed_and_absent_concepts_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(IceError, match="no folder"):
        load_concepts(tmp_path / "none")
    with pytest.raises(IceError, match="no learned concepts"):
        load_concepts(tmp_path)
    files = save_concepts(learned(("ball",)), tmp_path)
    files["ball.object"].unlink()
    with pytest.raises(IceError, match=r"ball_object\.safetensors is missing"):
        load_concepts(tmp_path)
    save_token(token("x"), tmp_path / "foreign.safetensors", "stable-diffusion-v1", DATE)
    other = learned(("cube",))
    save_concepts(LearnedConcepts(**{**vars(other), "seed": 8}), tmp_path)
    with pytest.raises(IceError, match="mixes"):
        load_concepts(tmp_path)


def test_an_interrupted_set_without_some_intrinsics_can_be_read(tmp_path: Path) -> None:
    files = save_concepts(learned(("ball",)), tmp_path)
    files["ball.material"].unlink()
    assert list(load_concepts(tmp_path).concepts[0].intrinsics) == ["color"]


def test_a_whole_object_is_a_file_of_several_rows_that_says_what_they_are(tmp_path: Path) -> None:
    before = learned(("ball",))
    path = save_concepts(before, tmp_path, DATE, {"ball": "data:x"})["ball"]
    parts = [before.tokens[f"ball.{part}"] for part in ("instance", "color", "material", "object")]
    rows = torch.cat([part.rows["clip_l"] for part in parts])
    assert torch.equal(load_file(path)["emb_params"], rows)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert (header["ice.role"], header["ice.axis"]) == ("whole", "")
    assert json.loads(header["ice.parts"]) == ["instance", "color", "material", "object"]
    assert header["modelspec.trigger_phrase"] == "embedding:ball"
    assert header["modelspec.thumbnail"] == "data:x"
    token = load_token(path)
    assert token.name == "ball"
    assert torch.equal(token.rows["clip_l"], rows)


def test_folders_of_older_versions_are_read_and_saved_the_same_token_by_token(tmp_path: Path) -> None:
    before = learned(("ball", "cube"))
    new = save_concepts(before, tmp_path / "new", DATE)
    (tmp_path / "old").mkdir()
    for name, path in new.items():
        if name in before.tokens:
            with safe_open(path, "pt") as file:
                header = {key: value for key, value in file.metadata().items() if key != "ice.parts"}
                save_file(load_file(path), tmp_path / "old" / path.name, header)
    old = load_concepts(tmp_path / "old")
    again = save_concepts(old, tmp_path / "again", DATE)
    assert again.keys() == new.keys()
    for name, path in again.items():
        assert torch.equal(load_file(path)["emb_params"], load_file(new[name])["emb_params"])
        with safe_open(path, "pt") as file, safe_open(new[name], "pt") as same:
            assert file.metadata() == same.metadata()
    (tmp_path / "old" / "ball_instance.safetensors").unlink()
    with pytest.raises(IceError, match=r"ball_instance\.safetensors is missing"):
        load_concepts(tmp_path / "old")


def test_an_object_without_an_instance_token_is_not_missing_it(tmp_path: Path) -> None:
    before = learned(("ball",))
    bare = replace(before, concepts=(replace(before.concepts[0], instance=None),))
    files = save_concepts(bare, tmp_path, DATE)
    assert "ball.instance" not in files
    assert load_concepts(tmp_path).concepts[0].instance is None


def test_an_axis_may_be_called_whole(tmp_path: Path) -> None:
    concept = replace(learned(("ball",)).concepts[0], intrinsics={"whole": token("ball.whole")})
    save_concepts(replace(learned(("ball",)), concepts=(concept,), axes=("whole",)), tmp_path)
    (after,) = load_concepts(tmp_path).concepts
    assert torch.equal(after.intrinsics["whole"].rows["clip_l"], token("ball.whole").rows["clip_l"])


@pytest.mark.parametrize("key", ["emb_params", "clip_l", "<my-cat>"])
def test_foreign_safetensors_are_read_by_the_first_key_that_fits(tmp_path: Path, key: str) -> None:
    rows = torch.randn(3, 768)
    save_file({key: rows}, tmp_path / "cat.safetensors")
    item = load_token(tmp_path / "cat.safetensors")
    assert item.name == "cat"
    assert torch.equal(item.rows["clip_l"], rows)


def test_other_files_of_tensors_are_no_embeddings(tmp_path: Path) -> None:
    save_file({"a.lora_down.weight": torch.zeros(4, 768), "b": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(IceError, match=r"holds 2 tensors \(a\.lora_down\.weight, b, \.\.\.\)"):
        load_token(tmp_path / "a.safetensors")


def test_embeddings_of_others_are_composed_with_ours_and_refused_by_both_families(tmp_path: Path) -> None:
    ours = save_concepts(learned(("ball",)), tmp_path / "ours")["ball"].parent
    rows = {"one": torch.randn(2, WIDTH), "two": torch.randn(WIDTH), "three": torch.randn(1, WIDTH)}
    torch.save({"string_to_param": {"*": rows["one"]}, "name": "one", "step": 5}, tmp_path / "one.pt")
    torch.save({"<two>": rows["two"]}, tmp_path / "two.bin")
    save_file({"clip_l": rows["three"]}, tmp_path / "three.SAFETENSORS")
    files = {"one": "one.pt", "two": "two.bin", "three": "three.SAFETENSORS"}
    sources = {name: open_concepts(tmp_path / file) for name, file in files.items()}
    prompt = parse_prompt(
        "a {one} {two} {three} {x.ball}", sources | {"x": open_concepts(ours)}, FakeBackbone()
    )
    tokens = [part for part in prompt.parts if isinstance(part, Token)]
    assert [len(token.rows["clip_l"]) for token in tokens] == [2, 1, 1, 4]
    assert torch.equal(tokens[1].rows["clip_l"][0], rows["two"])
    save_file({"emb_params": torch.randn(1, 1024)}, tmp_path / "sd2.safetensors")
    with pytest.raises(IceError, match=r"sd2 was made for Stable Diffusion 2\.x .*, but fake is "):
        parse_prompt("a {sd2}", {"": open_concepts(tmp_path / "sd2.safetensors")}, FakeBackbone())


def test_the_width_tells_the_encoder_of_foreign_rows(tmp_path: Path) -> None:
    save_file({"emb_params": torch.randn(1, 1024)}, tmp_path / "sd2.safetensors")
    assert list(load_token(tmp_path / "sd2.safetensors").rows) == ["clip_h"]


def test_foreign_pickles_are_read_without_running_code(tmp_path: Path) -> None:
    rows = torch.randn(2, 768)
    torch.save(
        {"string_to_param": {"*": rows}, "string_to_token": {"*": 265}, "name": "x"}, tmp_path / "a.pt"
    )
    torch.save({"<cat>": rows[0]}, tmp_path / "b.bin")
    assert torch.equal(load_token(tmp_path / "a.pt").rows["clip_l"], rows)
    assert torch.equal(load_token(tmp_path / "b.bin").rows["clip_l"], rows[:1])
    torch.save({"x": Path("code")}, tmp_path / "evil.pt")
    with pytest.raises(IceError, match="safely"):
        load_token(tmp_path / "evil.pt")


def test_files_that_are_no_embeddings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    (tmp_path / "cut.pt").write_bytes(b"no pickle")
    (tmp_path / "note.txt").write_text("hello")
    save_file({"conv": torch.randn(2, 3, 4, 4)}, tmp_path / "conv.safetensors")
    save_file({"emb_params": torch.full((1, 768), float("nan"))}, tmp_path / "nan.safetensors")
    for name in ("cut.safetensors", "cut.pt", "note.txt", "conv.safetensors", "nan.safetensors", "absent.pt"):
        with pytest.raises(IceError):
            load_token(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ice.axes", "[" * 100_000),
        ("ice.axes", "color"),
        ("ice.axes", "{}"),
        ("ice.seed", "seven"),
        ("ice.seed", "7.5"),
        ("ice.steps", ""),
        ("ice.steps", "[1]"),
        ("ice.index", "first"),
        ("ice.parts", "3"),
        ("ice.readings", '{"color": 3}'),
        ("ice.readings", "[]"),
    ],
)
def test_a_header_that_is_damaged_is_refused_with_its_file(tmp_path: Path, name: str, text: str) -> None:
    for path in save_concepts(learned(("ball",)), tmp_path).values():
        with safe_open(path, "pt") as file:
            header = file.metadata()
        save_file(load_file(path), path, header | {name: text})
    with pytest.raises(IceError, match=rf"{name.removeprefix('ice.')}.* in the header of .*ball"):
        load_concepts(tmp_path)


def test_tokens_of_several_widths_are_refused(tmp_path: Path) -> None:
    files = save_concepts(learned(("ball",)), tmp_path)
    with safe_open(files["ball.color"], "pt") as file:
        header = file.metadata()
    save_file({"emb_params": torch.zeros(1, 24)}, files["ball.color"], header)
    with pytest.raises(IceError, match="tokens of several kinds"):
        load_concepts(tmp_path)


def test_an_embedding_that_asks_for_more_than_its_file_holds_is_refused(tmp_path: Path) -> None:
    torch.save({"emb_params": torch.zeros(1).expand(100_000, 76_800)}, tmp_path / "a.pt")
    with pytest.raises(IceError, match="holds no embedding rows"):
        load_token(tmp_path / "a.pt")


def test_rows_of_two_encoders_belong_together(tmp_path: Path) -> None:
    save_file({"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(1, 1280)}, tmp_path / "a.safetensors")
    with pytest.raises(IceError, match="different numbers of rows"):
        load_token(tmp_path / "a.safetensors")
