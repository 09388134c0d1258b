"""Retrieval: dictionary, cache, ranking and the shipped words."""

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ice_core.concepts import unit
from ice_core.errors import IceError
from ice_core.localization.retrieval.cache import default_cache_folder
from ice_core.localization.retrieval.dictionary import Vocabulary, build_dictionary
from ice_core.localization.retrieval.image_mean import PHOTOGRAPHS, estimate_image_mean, photograph_mean
from ice_core.localization.retrieval.retriever import RetrievalConfig, Retriever

WIDTH = 64
FILLER = tuple(f"filler{i}" for i in range(400))
WORDS = ("dog", "ball", "red", "tree", "puppy", *FILLER)
THINGS = Vocabulary(WORDS, tuple(w != "red" for w in WORDS))


def word_embedding(text: str) -> Tensor:
    """A random direction per text; "puppy" lies close to "dog"."""
    if text == "puppy":
        return unit(word_embedding("dog") + 0.3 * word_embedding("young"))
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return unit(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)))


class FakeModel:
    """Embeds every picture as the same weighted sum of words, beside an offset that all pictures share."""

    name, fingerprint, scale = "fake", "ab" * 32, 10.0

    def __init__(self, shown: dict[str, float], offset: float = 0.0) -> None:
        self.shown, self.offset, self.encoded = shown, offset * word_embedding("offset"), 0

    def encode_images(self, images: Tensor) -> Tensor:
        z = unit(sum(weight * word_embedding(word) for word, weight in self.shown.items()))
        return unit(z + self.offset).expand(len(images), -1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.encoded += len(texts)
        return torch.stack([word_embedding(t) for t in texts])


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(3, 24, 40, generator=torch.Generator().manual_seed(0))


def labels(found) -> list[str]:
    return [item.label for item in found]


def test_finds_the_words_a_picture_is_made_of_best_first(picture, tmp_path):
    retriever = Retriever(FakeModel({"ball": 1.0, "tree": 0.7}), THINGS, cache_folder=tmp_path)
    found = retriever.retrieve(picture)
    assert labels(found)[:2] == ["ball", "tree"]
    similarities = [item.similarity for item in found]
    assert similarities == sorted(similarities, reverse=True)
    assert all(item.weight > 0 for item in found)


def test_order_is_by_similarity_not_by_weight(picture, tmp_path):
    model = FakeModel({"dog": 0.7, "puppy": 0.4, "tree": 1.0})
    retriever = Retriever(model, THINGS, RetrievalConfig(penalty=0.1), cache_folder=tmp_path)
    found = retriever.explain(picture)
    assert {"dog", "puppy", "tree"} <= set(labels(found.explanation))
    similarities = [item.similarity for item in found.candidates]
    assert similarities == sorted(similarities, reverse=True)
    weights = [item.weight for item in found.explanation]
    assert weights == sorted(weights, reverse=True)
    assert labels(found.explanation)[0] == "tree"
    assert labels(found.candidates)[0] == "puppy"


def test_properties_explain_but_do_not_name(picture, tmp_path):
    retriever = Retriever(FakeModel({"ball": 0.7, "red": 1.0}), THINGS, cache_folder=tmp_path)
    found = retriever.explain(picture)
    assert "red" in labels(found.explanation)
    assert "red" not in labels(found.candidates)
    assert labels(found.candidates)[0] == "ball"


def test_words_that_repeat_a_used_label_are_dropped(picture, tmp_path):
    retriever = Retriever(FakeModel({"puppy": 1.0, "tree": 0.6}), THINGS, cache_folder=tmp_path)
    assert labels(retriever.retrieve(picture))[0] == "puppy"
    assert labels(retriever.retrieve(picture, used=["dog"]))[0] == "tree"
    assert labels(retriever.retrieve(picture, used=["tree"]))[0] == "puppy"
    assert "tree" not in labels(retriever.retrieve(picture, used=["tree"]))


def test_a_used_label_may_be_any_text(picture, tmp_path):
    retriever = Retriever(FakeModel({"ball": 1.0}), THINGS, cache_folder=tmp_path)
    assert labels(retriever.retrieve(picture, used=["something else entirely"]))[0] == "ball"


def test_the_penalty_is_halved_until_a_name_survives(picture, tmp_path):
    model = FakeModel({"red": 1.0, "ball": 0.2})
    found = Retriever(model, THINGS, cache_folder=tmp_path).explain(picture)
    assert found.penalty < 0.2
    assert found.candidates
    strict = Retriever(model, THINGS, RetrievalConfig(halvings=0), cache_folder=tmp_path).explain(picture)
    assert strict.penalty == 0.2
    assert not strict.candidates
    assert labels(strict.explanation) == ["red"]


def test_nothing_to_name_ends_after_the_last_halving(picture, tmp_path):
    vocabulary = Vocabulary(("red", "blue"), (False, False))
    found = Retriever(FakeModel({"red": 1.0}), vocabulary, cache_folder=tmp_path).explain(picture)
    assert not found.candidates
    assert found.penalty == pytest.approx(0.2 / 2**6)


def test_the_image_mean_takes_out_what_all_pictures_share(picture, tmp_path):
    model = FakeModel({"ball": 1.0, "tree": 0.9}, offset=3.0)
    mean = unit(word_embedding("offset")) * 0.95
    plain = Retriever(model, THINGS, cache_folder=tmp_path).explain(picture)
    centred = Retriever(model, THINGS, image_mean=mean, cache_folder=tmp_path).explain(picture)
    assert (plain.centred_by, centred.centred_by) == ("none", "image_mean")
    weight = {item.label: item.weight for item in plain.explanation}
    assert {item.label: item.weight for item in centred.explanation}["ball"] > weight.get("ball", 0)


def test_an_image_mean_of_another_model_is_refused(picture, tmp_path):
    retriever = Retriever(FakeModel({"ball": 1.0}), THINGS, image_mean=torch.zeros(5), cache_folder=tmp_path)
    with pytest.raises(IceError, match="image mean"):
        retriever.retrieve(picture)


def test_estimates_the_image_mean_from_pictures_of_different_sizes(picture):
    model = FakeModel({"ball": 1.0})
    mean = estimate_image_mean(model, [picture, picture[:, :8]])
    torch.testing.assert_close(mean, word_embedding("ball"))
    with pytest.raises(IceError, match="no pictures"):
        estimate_image_mean(model, [])


def test_a_black_picture_shows_nothing(tmp_path):
    retriever = Retriever(FakeModel({"ball": 1.0}), THINGS, cache_folder=tmp_path)
    assert retriever.retrieve(torch.zeros(3, 16, 16)) == []


@pytest.mark.parametrize("bad", [torch.full((3, 8, 8), float("nan")), torch.zeros(1, 3, 8, 8)])
def test_refuses_what_is_not_a_picture(bad, tmp_path):
    with pytest.raises(IceError, match="picture"):
        Retriever(FakeModel({"ball": 1.0}), THINGS, cache_folder=tmp_path).retrieve(bad)


@pytest.mark.parametrize(
    "wrong", [{"penalty": 0}, {"duplicate_cosine": 2}, {"halvings": -1}, {"template": "a photo"}]
)
def test_refuses_settings_that_make_no_sense(wrong):
    with pytest.raises(IceError, match=str(next(iter(wrong.values())))):
        RetrievalConfig(**wrong)


def test_the_second_build_reads_the_cache(tmp_path):
    model = FakeModel({})
    first = build_dictionary(model, THINGS, tmp_path)
    assert model.encoded == len(WORDS)
    second = build_dictionary(model, THINGS, tmp_path)
    assert model.encoded == len(WORDS)
    assert torch.equal(first.raw, second.raw)
    assert torch.equal(first.centred, second.centred)


def test_embeddings_are_centred_and_of_unit_length(tmp_path):
    dictionary = build_dictionary(FakeModel({}), THINGS, tmp_path)
    ones = torch.ones(len(WORDS))
    torch.testing.assert_close(dictionary.raw.norm(dim=1), ones)
    torch.testing.assert_close(dictionary.centred.norm(dim=1), ones)
    torch.testing.assert_close(dictionary.centred, unit(dictionary.raw - dictionary.raw.mean(0)))


def test_a_single_word_is_not_centred_away(picture, tmp_path):
    retriever = Retriever(FakeModel({"ball": 1.0}), Vocabulary.from_text("ball"), cache_folder=tmp_path)
    assert labels(retriever.retrieve(picture)) == ["ball"]


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_a_damaged_cache_file_is_built_anew(damage, tmp_path):
    model = FakeModel({})
    whole = build_dictionary(model, THINGS, tmp_path)
    (path,) = tmp_path.iterdir()
    if damage is None:
        save_file({"raw": whole.raw[:3].contiguous()}, path)
    else:
        path.write_bytes(damage)
    again = build_dictionary(model, THINGS, tmp_path)
    assert model.encoded == 2 * len(WORDS)
    assert torch.equal(whole.raw, again.raw)
    build_dictionary(model, THINGS, tmp_path)
    assert model.encoded == 2 * len(WORDS)
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


def test_a_changed_number_in_the_cache_is_seen(tmp_path):
    model = FakeModel({})
    whole = build_dictionary(model, THINGS, tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-4:] = struct.pack("<f", 0.25)
    path.write_bytes(data)
    assert torch.equal(build_dictionary(model, THINGS, tmp_path).raw, whole.raw)
    assert model.encoded == 2 * len(WORDS)


def test_other_words_models_and_templates_have_other_cache_files(tmp_path):
    model, other = FakeModel({}), FakeModel({})
    other.fingerprint = "cd" * 32
    build_dictionary(model, THINGS, tmp_path)
    build_dictionary(model, Vocabulary.from_text("dog, ball"), tmp_path)
    build_dictionary(other, THINGS, tmp_path)
    build_dictionary(model, THINGS, tmp_path, "a photo of a {}")
    assert len(list(tmp_path.iterdir())) == 4


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert build_dictionary(FakeModel({}), THINGS, blocked / "cache").raw.shape == (len(WORDS), WIDTH)


def test_the_cache_is_in_the_users_cache_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")
    assert default_cache_folder() == Path("elsewhere/comfyui-ice")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache" / "comfyui-ice"


def test_user_words_are_split_cleaned_and_all_nameable():
    vocabulary = Vocabulary.from_text("red  ball, dog\n\n ,Dog\r\ntree,")
    assert vocabulary.words == ("red ball", "dog", "tree")
    assert vocabulary.nameable == (True, True, True)


@pytest.mark.parametrize("text", ["", " ,\n, "])
def test_an_empty_vocabulary_is_refused(text):
    with pytest.raises(IceError, match="empty"):
        Vocabulary.from_text(text)


def test_fingerprints_tell_words_and_flags_apart():
    prints = {
        Vocabulary(words, flags).fingerprint
        for words, flags in [
            (("a", "b"), (True, True)),
            (("b", "a"), (True, True)),
            (("a", "b"), (True, False)),
        ]
    }
    assert len(prints) == 3


def test_built_in_words_that_describe_are_single_clip_tokens_and_names_may_be_phrases():
    vocabulary = Vocabulary.built_in()
    assert 10_000 <= len(vocabulary.words) <= 15_000
    assert len(set(vocabulary.words)) == len(vocabulary.words)
    tokenizer = open_clip.SimpleTokenizer()
    flagged = list(zip(vocabulary.words, vocabulary.nameable, strict=True))
    assert all(len(tokenizer.encode(word)) == 1 for word, nameable in flagged if not nameable)
    names = [word for word, nameable in flagged if nameable]
    assert len(names) > 1_000
    assert {"fire hydrant", "teddy bear", "traffic light", "person", "sofa"} <= set(names)
    assert {"man", "king", "art", "ell", "ace"}.isdisjoint(names)


def test_built_in_names_stand_below_the_word_that_people_type():
    vocabulary = Vocabulary.built_in()
    assert {"golden retriever", "dalmatian"} <= set(vocabulary.finer["dog"])
    assert "woman" in vocabulary.finer["person"]
    assert set(vocabulary.finer) <= set(vocabulary.words)
    assert vocabulary.definitions["golden retriever"] == "an English breed having a long silky golden coat"
    below = [name for names in vocabulary.finer.values() for name in names]
    assert len(set(below)) == len(below) > 10_000
    assert set(below).isdisjoint(vocabulary.words)


def test_parts_of_the_body_are_offered_on_request_only():
    words = Vocabulary.built_in().words
    more = Vocabulary.built_in(body_parts=True)
    flagged = dict(zip(more.words, more.nameable, strict=True))
    assert flagged["elbow"]
    assert "elbow" not in words
    assert len(more.words) > len(words)


def test_a_plain_name_comes_first_and_the_report_has_the_finer_one(picture, tmp_path):
    vocabulary = Vocabulary(THINGS.words, THINGS.nameable, finer={"dog": ("terrier", "poodle")})
    model = FakeModel({"dog": 1.0, "terrier": 0.8})
    best = Retriever(model, vocabulary, cache_folder=tmp_path).retrieve(picture)[0]
    assert best.label == "dog"
    weights = torch.stack([word_embedding(x) for x in ("dog", "terrier", "poodle")])
    seen = model.encode_images(picture[None])
    expected = (model.scale * seen @ weights.T)[0].softmax(0)[1].item()
    assert [one.value for one in best.finer] == ["terrier"]
    assert best.finer[0].weight == pytest.approx(expected, abs=1e-5)


def test_of_very_many_finer_names_the_most_usual_are_weighed(picture, tmp_path):
    many = tuple(f"dog {n}" for n in range(1000))
    model = FakeModel({"dog": 1.0})
    retriever = Retriever(
        model, Vocabulary(THINGS.words, THINGS.nameable, {"dog": many}), cache_folder=tmp_path
    )
    retriever.retrieve(picture)
    assert model.encoded <= len(WORDS) + 300


def test_the_mean_of_photographs_is_made_once_and_taken_off(picture, tmp_path, monkeypatch):
    model = FakeModel({"ball": 1.0, "red": 0.5})
    mean = photograph_mean(model, tmp_path)
    assert mean.shape == (WIDTH,)
    monkeypatch.setattr(model, "encode_images", lambda images: pytest.fail("the mean was not kept"))
    torch.testing.assert_close(photograph_mean(model, tmp_path), mean)
    assert len(PHOTOGRAPHS) >= 10
    again = FakeModel({"ball": 1.0, "red": 0.5})
    retriever = Retriever(again, THINGS, image_mean="photographs", cache_folder=tmp_path)
    assert retriever.explain(picture).centred_by == "photographs"


def test_built_in_things_can_name_and_properties_cannot():
    vocabulary = Vocabulary.built_in()
    names = dict(zip(vocabulary.words, vocabulary.nameable, strict=True))
    things = "ball cube cylinder cone ring dog bear table book train car tree chair bottle cloud apple"
    properties = "red blue turquoise metal wood glass rubber striped shiny plain round velvet photo"
    assert [w for w in things.split() if not names[w]] == []
    assert [w for w in properties.split() if names[w]] == []
