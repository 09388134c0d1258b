"""Concept sets: all of a picture in one file, the same bytes for the same content, checked when read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokens import learned, token

from ice_core.concepts import Candidate, Concept, LearnedConcept, LearnedConcepts, Reading
from ice_core.errors import IceError
from ice_core.files.concept_set import SavedConcepts, load_concept_set, save_concept_set
from ice_core.files.embeddings import load_concepts, open_concepts, save_concepts
from ice_core.files.images import jpeg_bytes
from ice_core.model.backbone import Token

DATE = "2026-01-02T03:04:05+00:00"
PICTURE = jpeg_bytes(torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(1)))


def read(base: LearnedConcepts) -> LearnedConcepts:
    """The same with something read of every object."""
    candidates = (Candidate("rot\u00e9", 0.75), Candidate("blue", 0.25))
    reading = Reading("color", candidates, "clip", True, ("rust",), (("dark", "light"),))
    return replace(base, concepts=tuple(replace(c, readings={"color": reading}) for c in base.concepts))


def saved() -> SavedConcepts:
    """Two of three objects with masks of a width that is no multiple of 8."""
    rng = torch.Generator().manual_seed(2)
    masks = torch.rand(2, 50, 70, generator=rng) > 0.5
    return SavedConcepts(
        learned=read(learned()),
        found=(Concept("zebra", "zebra", masks[0], 0.9), Concept("ball-2", "ball", masks[1], 1.0)),
        background=masks[0] & masks[1],
        settings={"training": {"steps": 40, "axes": ["color", "material"]}},
        title="a picture.png",
        date=DATE,
        thumbnails={"ball": PICTURE, "ball.color": PICTURE[::-1]},
        sheet=PICTURE,
        picture=PICTURE,
    )


def two_encoders() -> LearnedConcepts:
    def both(name: str) -> Token:
        return Token(name, token(name, 24).rows | token(name, 40, encoders=("clip_g",)).rows)

    concept = LearnedConcept("vase", "vase", None, both("vase.object"), {"color": both("vase.color")})
    return replace(
        learned(), concepts=(concept,), axes=("color",), architecture="stable-diffusion-xl-v1-base"
    )


def same_tokens(one: LearnedConcepts, other: LearnedConcepts) -> bool:
    return list(one.tokens) == list(other.tokens) and all(
        token.rows.keys() == other.tokens[name].rows.keys()
        and all(torch.equal(rows, other.tokens[name].rows[encoder]) for encoder, rows in token.rows.items())
        for name, token in one.tokens.items()
    )


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    before = saved()
    after = load_concept_set(save_concept_set(before, tmp_path / "concepts.safetensors"))
    assert same_tokens(before.learned, after.learned)
    assert [c.readings for c in after.learned.concepts] == [c.readings for c in before.learned.concepts]
    for name in ("axes", "base_name", "base_fingerprint", "architecture", "seed", "steps"):
        assert getattr(after.learned, name) == getattr(before.learned, name)
    for one, other in zip(before.found, after.found, strict=True):
        assert (one.key, one.label, one.score) == (other.key, other.label, other.score)
        assert torch.equal(one.mask, other.mask)
    assert torch.equal(before.background, after.background)
    for name in ("settings", "title", "date", "version", "thumbnails", "sheet", "picture"):
        assert getattr(after, name) == getattr(before, name), name


def test_tokens_alone_are_a_concept_set(tmp_path: Path) -> None:
    after = load_concept_set(save_concept_set(SavedConcepts(learned()), tmp_path / "a.safetensors"))
    assert same_tokens(after.learned, learned())
    assert (after.found, after.background, after.sheet, after.picture) == ((), None, None, None)


def test_tokens_of_two_encoders_keep_both(tmp_path: Path) -> None:
    path = save_concept_set(SavedConcepts(two_encoders()), tmp_path / "a.safetensors")
    assert load_file(path)["tokens/vase.color/clip_g"].shape == (1, 40)
    assert same_tokens(load_concepts(path), two_encoders())


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    path = save_concept_set(saved(), tmp_path / "a.safetensors")
    again = save_concept_set(load_concept_set(path), tmp_path / "b.safetensors")
    assert again.read_bytes() == path.read_bytes()


def test_the_header_says_what_it_is_to_model_browsers(tmp_path: Path) -> None:
    with safe_open(save_concept_set(saved(), tmp_path / "a.safetensors"), "pt") as file:
        header = file.metadata()
    assert header["modelspec.sai_model_spec"] == "1.0.0"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/concept-set"
    assert header["modelspec.title"] == "a picture.png"
    assert header["modelspec.description"].startswith("zebra, ball, learned")
    assert header["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")


def test_nothing_is_overwritten_unless_told_to(tmp_path: Path) -> None:
    path = tmp_path / "vase.safetensors"
    assert save_concept_set(saved(), path) == path
    assert save_concept_set(saved(), path) == tmp_path / "vase-2.safetensors"
    assert save_concept_set(saved(), path, replace=True) == path


def test_a_set_is_opened_as_a_file_and_in_its_folder_where_there_are_no_embeddings(tmp_path: Path) -> None:
    path = save_concept_set(saved(), tmp_path / "set" / "mine.safetensors")
    assert same_tokens(load_concepts(path.parent), saved().learned)
    assert isinstance(open_concepts(path), LearnedConcepts)
    files = save_concepts(learned(("cube",)), path.parent / "embeddings")
    assert [c.key for c in load_concepts(path.parent).concepts] == ["cube"]
    assert isinstance(open_concepts(files["cube"]), Token)
    again = save_concept_set(saved(), tmp_path / "two" / "a.safetensors").parent
    save_concept_set(saved(), again / "b.safetensors")
    with pytest.raises(IceError, match=r"several concept sets \(a\.safetensors, b\.safetensors\)"):
        load_concepts(again)


def test_masks_of_nothing_or_of_several_sizes_are_refused(tmp_path: Path) -> None:
    small = Concept("ball", "ball", torch.ones(4, 4, dtype=torch.bool), 1.0)
    with pytest.raises(IceError, match="several sizes"):
        save_concept_set(replace(saved(), found=(*saved().found, small)), tmp_path / "a.safetensors")
    strange = replace(small, key="cone")
    with pytest.raises(IceError, match="'cone', of which nothing was learned"):
        save_concept_set(SavedConcepts(learned(), (strange,)), tmp_path / "a.safetensors")
    with pytest.raises(IceError, match="name"):
        save_concept_set(SavedConcepts(learned(("../evil",))), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


Header, Tensors = dict[str, str], dict[str, torch.Tensor]


def concepts_changed(name: str, value: object) -> Callable[[Header, Tensors], None]:
    """Sets a field of the first object in the header."""

    def change(header: Header, tensors: Tensors) -> None:
        concepts = json.loads(header["ice.concepts"])
        concepts[0][name] = value
        header["ice.concepts"] = json.dumps(concepts)

    return change


def entry(name: str, text: str) -> Callable[[Header, Tensors], None]:
    return lambda header, tensors: header.update({name: text})


def tensor(name: str, value: torch.Tensor) -> Callable[[Header, Tensors], None]:
    return lambda header, tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    "damage",
    [
        entry("ice.format", "concept-set-9"),
        entry("ice.format", "lora"),
        entry("ice.axes", "[" * 100_000),
        entry("ice.axes", "[1]"),
        entry("ice.axes", "no json"),
        entry("ice.seed", "1.5"),
        entry("ice.steps", "true"),
        entry("ice.settings", "[]"),
        entry("ice.size", "[50]"),
        entry("ice.size", '[50, "70"]'),
        entry("ice.concepts", "[]"),
        entry("ice.concepts", "[1, null]"),
        concepts_changed("key", "ball"),
        concepts_changed("key", "../evil"),
        concepts_changed("key", 3),
        concepts_changed("label", None),
        concepts_changed("score", "much"),
        concepts_changed("parts", ["color"]),
        concepts_changed("parts", 7),
        concepts_changed("parts", ["object", "absent"]),
        concepts_changed("readings", {"color": {"axis": "color"}}),
        concepts_changed("readings", [1]),
        tensor("tokens/zebra.color/clip_l", torch.full((1, 16), math.nan)),
        tensor("tokens/zebra.color/clip_l", torch.zeros(1, 2, 16)),
        tensor("tokens/zebra.color/clip_l", torch.zeros(1, 17)),
        tensor("tokens/zebra.color/clip_l", torch.zeros(0, 16)),
        tensor("tokens/zebra.color/clip_l/more", torch.zeros(1, 16)),
        tensor("masks/zebra", torch.zeros(50, 8, dtype=torch.uint8)),
        tensor("masks/zebra", torch.zeros(50, 9)),
        tensor("background", torch.zeros(450, dtype=torch.uint8)),
        tensor("sheet", torch.zeros(5)),
        tensor("thumbnails/ball", torch.zeros(5, 5, dtype=torch.uint8)),
    ],
)
def test_damage_is_an_ice_error(tmp_path: Path, damage: Callable[[Header, Tensors], None]) -> None:
    path = save_concept_set(saved(), tmp_path / "a.safetensors")
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    damage(header, tensors)
    save_file(tensors, path, header)
    with pytest.raises(IceError, match=r"a\.safetensors|name"):
        load_concept_set(path)


def test_other_files_are_no_concept_sets(tmp_path: Path) -> None:
    files = save_concepts(learned(("ball",)), tmp_path)
    with pytest.raises(IceError, match="no concept set"):
        load_concept_set(files["ball"])
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(IceError, match="header claims"):
        load_concept_set(tmp_path / "cut.safetensors")
    with pytest.raises(IceError, match="no file"):
        load_concept_set(tmp_path / "absent.safetensors")
