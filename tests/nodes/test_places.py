"""Where saved concepts are found, and what they are called in a prompt."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from concept_sets import concept_set

from ice_core.concepts import LearnedConcept, LearnedConcepts
from ice_core.errors import IceError
from ice_core.files.concept_set import ENDING, SavedConcepts, save_concept_set
from ice_core.files.embeddings import save_concepts
from ice_core.files.images import data_uri, jpeg_bytes, uri_bytes
from ice_core.model.backbone import Token
from nodes import places


def learned(*keys: str) -> LearnedConcepts:
    def token(key: str, role: str) -> Token:
        return Token(f"{key}.{role}", {"clip_l": torch.rand(1, 8)})

    concepts = tuple(
        LearnedConcept(k, k, token(k, "instance"), token(k, "object"), {"color": token(k, "color")})
        for k in keys
    )
    return LearnedConcepts(concepts, ("color",), "base", "f" * 64, "stable-diffusion-v1", 0, 2)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The host's embeddings and output folders."""
    embeddings, output = tmp_path / "embeddings", tmp_path / "output"
    host = SimpleNamespace(
        get_folder_paths=lambda kind: [str(embeddings)], get_output_directory=lambda: str(output)
    )
    monkeypatch.setitem(sys.modules, "folder_paths", host)
    return embeddings, output


def test_only_folders_with_saved_concepts_are_listed(folders: tuple[Path, Path]) -> None:
    embeddings, output = folders
    save_concepts(learned("ball"), embeddings / "ice" / "one")
    save_concepts(learned("ball"), embeddings)
    save_concepts(learned("cube"), output / "ice" / "interrupted" / "abc" / "embeddings")
    save_concepts(learned("cube"), output / "elsewhere")
    (embeddings / "mine").mkdir()
    (embeddings / "mine" / "style.safetensors").write_bytes(b"")
    assert sorted(places.saved()) == [
        "embeddings",
        "embeddings/ice/one",
        "output/ice/interrupted/abc/embeddings",
    ]


def test_concept_sets_are_listed_by_their_names_and_loaded(folders: tuple[Path, Path]) -> None:
    embeddings, output = folders
    given = SavedConcepts(learned("ball"))
    save_concept_set(given, embeddings / "vase.concepts.safetensors")
    save_concept_set(given, output / "ice" / "demo" / "concepts.safetensors")
    (embeddings / "style.safetensors").write_bytes(b"")
    assert sorted(places.saved()) == [
        "embeddings/vase.concepts.safetensors",
        "output/ice/demo/concepts.safetensors",
    ]
    loaded = places.load("embeddings/vase.concepts.safetensors")
    assert not isinstance(loaded, places.LoadedConcepts)
    assert loaded.tokens.keys() == given.learned.tokens.keys()
    assert "vase.concepts.safetensors".endswith(ENDING)
    plain = learned("cube")
    assert places.all_of(plain) == SavedConcepts(plain)
    assert ENDING == places._SET


def test_a_loaded_concept_set_goes_on_with_all_that_was_in_it(folders: tuple[Path, Path]) -> None:
    given = concept_set()
    save_concept_set(given, folders[0] / "squares.concepts.safetensors")
    loaded = places.load("embeddings/squares.concepts.safetensors")
    every = places.all_of(loaded)
    assert every.learned.tokens.keys() == loaded.tokens.keys() == given.learned.tokens.keys()
    assert (every.picture, every.sheet, every.title) == (given.picture, given.sheet, given.title)
    assert [concept.key for concept in every.found] == [concept.key for concept in given.found]


def test_links_that_lead_back_up_are_followed_once(folders: tuple[Path, Path]) -> None:
    embeddings, _ = folders
    save_concepts(learned("ball"), embeddings / "ice" / "one")
    for name in ("a", "b"):
        (embeddings / "ice" / name).symlink_to(embeddings, target_is_directory=True)
    save_concepts(learned("cube"), embeddings.parent / "shared")
    (embeddings / "shared").symlink_to(embeddings.parent / "shared", target_is_directory=True)
    assert sorted(places.saved()) == ["embeddings/ice/one", "embeddings/shared"]


def test_folders_that_do_not_exist_hold_nothing(folders: tuple[Path, Path]) -> None:
    assert places.saved() == {}


def test_what_was_saved_is_loaded_with_the_folder_it_lies_in(folders: tuple[Path, Path]) -> None:
    given = learned("ball", "cube")
    save_concepts(given, folders[0] / "ice" / "two")
    loaded = places.load("embeddings/ice/two")
    assert isinstance(loaded, places.LoadedConcepts)
    assert loaded.folder == "ice/two"
    assert loaded.tokens.keys() == given.tokens.keys()
    for name, token in given.tokens.items():
        assert torch.equal(loaded.tokens[name].rows["clip_l"], token.rows["clip_l"])
    assert set(places.names_in("embeddings/ice/two")) == {"ball", "cube", *given.tokens}


def test_objects_without_an_instance_token_are_listed(folders: tuple[Path, Path]) -> None:
    given = learned("ball")
    bare = replace(given, concepts=(replace(given.concepts[0], instance=None),))
    save_concepts(bare, folders[0] / "one")
    assert places.names_in("embeddings/one") == ("ball", "ball.object", "ball.color")


def test_folders_that_older_versions_left_are_listed(folders: tuple[Path, Path]) -> None:
    save_concepts(learned("ball"), folders[0] / "one")["ball"].unlink()
    assert list(places.saved()) == ["embeddings/one"]


def test_a_name_that_is_not_listed_is_refused_with_those_that_are(folders: tuple[Path, Path]) -> None:
    save_concepts(learned("ball"), folders[0] / "one")
    with pytest.raises(IceError, match="there are: embeddings/one"):
        places.load("embeddings/../../etc")


def test_every_save_has_a_folder_and_a_lora_of_its_own(tmp_path: Path) -> None:
    root, loras = tmp_path / "embeddings", tmp_path / "loras"
    loras.mkdir()
    assert places.unused("ice/demo", root, loras) == "ice/demo"
    save_concepts(learned("ball"), root / "ice" / "demo")
    assert places.unused("ice/demo", root, loras) == "ice/demo-2", "another picture's ball or cube alike"
    (loras / "ice").mkdir()
    (loras / "ice" / "demo-2.safetensors").touch()
    assert places.unused("ice/demo", root, loras) == "ice/demo-3", "its LoRA would be another's"
    assert places.unused("ice", root, loras) == "ice", "a folder of folders holds no save itself"
    with pytest.raises(IceError):
        places.unused("../demo", root, loras)


def test_a_file_s_name_in_a_prompt_has_its_folder_and_no_ending() -> None:
    root = Path("models", "embeddings")
    path = root / "ice" / "vase" / "ball-2_color.safetensors"
    assert places.embedding_name(path, root) == "embedding:ice/vase/ball-2_color"


def test_thumbnails_of_embeddings_and_of_a_concept_set_are_found_by_name(folders: tuple[Path, Path]) -> None:
    given = concept_set()
    picture = jpeg_bytes(torch.rand(3, 32, 32))
    uri = data_uri(torch.rand(3, 32, 32))
    save_concept_set(
        replace(given, thumbnails={"ball.color": picture}), folders[0] / "one.concepts.safetensors"
    )
    save_concepts(given.learned, folders[0] / "two", thumbnails={"ball": uri, "ball.color": uri})
    assert places.thumbnail("embeddings/one.concepts.safetensors", "ball.color") == picture
    assert places.thumbnail("embeddings/one.concepts.safetensors", "ball") is None
    for name in ("ball", "ball.color"):
        assert places.thumbnail("embeddings/two", name) == uri_bytes(uri)
    assert places.thumbnail("embeddings/two", "cube.color") is None
    assert places.thumbnail("embeddings/two", "../two/ball") is None
    assert places.thumbnail("embeddings/absent", "ball") is None
