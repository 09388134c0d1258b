"""Concept sets and embeddings into each other, and files of others into what every tool loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokens import learned, token

from ice_core.concepts import LearnedConcept
from ice_core.errors import IceError
from ice_core.files.concept_set import SavedConcepts, load_concept_set, save_concept_set
from ice_core.files.converting import convert
from ice_core.files.embeddings import load_concepts, save_concepts
from ice_core.files.images import as_data_uri, jpeg_bytes
from ice_core.files.token_file import load_token
from ice_core.model.backbone import Token

PICTURE = jpeg_bytes(torch.zeros(3, 32, 32))


def xl() -> SavedConcepts:
    """One object of two text encoders."""

    def both(name: str) -> Token:
        return Token(name, token(name, 768).rows | token(name, 1280, encoders=("clip_g",)).rows)

    concept = LearnedConcept("vase", "vase", None, both("vase.object"), {"color": both("vase.color")})
    architecture = "stable-diffusion-xl-v1-base"
    return SavedConcepts(
        replace(learned(), concepts=(concept,), axes=("color",), architecture=architecture),
        thumbnails={"vase.color": PICTURE},
    )


def same(one: dict[str, Token], other: dict[str, Token]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(rows, other[name].rows[encoder])
        for name, token in one.items()
        for encoder, rows in token.rows.items()
    )


def test_a_concept_set_is_split_into_embeddings_and_joined_again(tmp_path: Path) -> None:
    before = xl()
    source = save_concept_set(before, tmp_path / "vase.concepts.safetensors")
    paths = convert([source], tmp_path / "vase")
    assert [path.name for path in paths] == [
        "vase.safetensors", "vase_object.safetensors", "vase_color.safetensors"
    ]  # fmt: skip
    assert {k: tuple(v.shape) for k, v in load_file(paths[0]).items()} == {
        "clip_l": (2, 768), "clip_g": (2, 1280)
    }  # fmt: skip
    with safe_open(paths[2], "pt") as file:
        assert file.metadata()["modelspec.thumbnail"].startswith("data:image/jpeg")
    for sources in ([tmp_path / "vase"], paths[1:]):
        (joined,) = convert(sources, tmp_path / "again.safetensors")
        after = load_concept_set(joined)
        assert same(after.learned.tokens, before.learned.tokens)
        assert (after.learned.axes, after.learned.seed) == (before.learned.axes, before.learned.seed)
        assert list(after.thumbnails) == ["vase.color"]
    assert joined.name == "again-2.safetensors"


def test_the_folder_of_a_run_is_joined_by_its_embeddings(tmp_path: Path) -> None:
    save_concepts(learned(), tmp_path / "run" / "embeddings", thumbnails={"ball": as_data_uri(PICTURE)})
    save_concept_set(SavedConcepts(learned()), tmp_path / "run" / "concepts.safetensors")
    (joined,) = convert([tmp_path / "run"], tmp_path / "a.safetensors")
    assert same(load_concepts(joined).tokens, learned().tokens)
    assert list(load_concept_set(joined).thumbnails) == ["ball"]


def test_an_embedding_of_others_is_written_for_every_tool(tmp_path: Path) -> None:
    rows = torch.randn(2, 1024)
    torch.save({"string_to_param": {"*": rows}, "name": "cat"}, tmp_path / "cat.pt")
    (path,) = convert([tmp_path / "cat.pt"], tmp_path / "cat.safetensors")
    assert torch.equal(load_file(path)["emb_params"], rows)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert header["modelspec.architecture"] == "stable-diffusion-v2-768-v/textual-inversion"
    assert header["modelspec.title"] == "cat"
    assert load_token(path).name == "cat"
    assert convert([path], tmp_path / "cat.safetensors") == [tmp_path / "cat-2.safetensors"]


def test_embeddings_of_others_are_joined_as_an_object_each(tmp_path: Path) -> None:
    save_file({"emb_params": torch.randn(2, 768)}, tmp_path / "cat.safetensors")
    torch.save({"<dog>": torch.randn(768)}, tmp_path / "dog.bin")
    for sources in ([tmp_path], [tmp_path / "cat.safetensors", tmp_path / "dog.bin"]):
        (joined,) = convert(sources, tmp_path / "sets" / "pets.safetensors")
        pets = load_concepts(joined)
        assert list(pets.tokens) == ["cat.object", "dog.object"]
        assert pets.architecture == "stable-diffusion-v1"
    save_file({"emb_params": torch.randn(2, 1024)}, tmp_path / "sd2.safetensors")
    with pytest.raises(IceError, match="tokens of several kinds"):
        convert([tmp_path], tmp_path / "b.safetensors")


def test_what_does_not_belong_together_is_refused_and_nothing_written(tmp_path: Path) -> None:
    ours = save_concepts(learned(("ball",)), tmp_path / "ours")
    theirs = tmp_path / "theirs.safetensors"
    save_file({"emb_params": torch.randn(1, 16)}, theirs)
    other = save_concepts(replace(learned(("cube",)), seed=9), tmp_path / "other")
    whole = save_concept_set(SavedConcepts(learned()), tmp_path / "set.safetensors")
    (tmp_path / "empty").mkdir()
    out, here = tmp_path / "out.safetensors", sorted(tmp_path.rglob("*"))
    for sources, target, message in (
        ([ours["ball"], theirs], out, "another maker"),
        ([ours["ball.object"], other["cube.object"]], out, "several extractions"),
        ([ours["ball"], ours["ball"]], out, "is a whole object"),
        ([ours["ball.color"], ours["ball.material"]], out, "ball_instance.safetensors is missing"),
        ([tmp_path / "ours", tmp_path / "other"], out, "is a folder"),
        ([tmp_path / "empty"], out, "no embeddings in"),
        ([whole, whole], out, "not a textual inversion"),
        ([whole], out, "becomes a folder of embeddings"),
        ([tmp_path / "ours"], tmp_path / "out", "let it end with .safetensors"),
        ([theirs], tmp_path / "out.pt", "let it end with .safetensors"),
        ([], out, "nothing to convert"),
    ):
        with pytest.raises(IceError, match=message.replace(".", r"\.")):
            convert(sources, target)
    assert sorted(tmp_path.rglob("*")) == here
