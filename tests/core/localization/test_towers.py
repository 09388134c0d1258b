"""CLIP towers: opened from files and by name, and what they embed."""

import huggingface_hub
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from ice_core.errors import IceError
from ice_core.localization.retrieval.towers import (
    OpenClipTowers,
    download_size,
    load_open_clip,
    weights_fingerprint,
)


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    torch.manual_seed(0)
    return open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    )


@pytest.fixture(scope="module")
def towers(clip) -> OpenClipTowers:
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return OpenClipTowers(clip, "tiny", "00", mean, std)


def test_towers_embed_pictures_of_any_size_and_texts_as_unit_vectors(towers):
    images = towers.encode_images(torch.rand(2, 3, 50, 90, generator=torch.Generator().manual_seed(1)))
    texts = towers.encode_texts(["a dog", "ball", "word " * 200])
    assert images.shape == (2, 16)
    assert texts.shape == (3, 16)
    for features in (images, texts):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))
        assert not features.requires_grad


def test_towers_see_the_whole_picture_up_to_its_corners(towers):
    image = torch.full((1, 3, 40, 120), 0.5)
    corner = image.clone()
    corner[..., :, :20] = 1.0
    assert (towers.encode_images(image) - towers.encode_images(corner)).abs().max() > 1e-3


def test_towers_normalise_as_the_model_was_trained(towers, clip):
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    with torch.no_grad():
        expected = clip.encode_image((image - mean) / std, normalize=True)
    torch.testing.assert_close(towers.encode_images(image), expected)


def test_many_texts_equal_the_same_texts_one_by_one(towers):
    texts = [f"word {i}" for i in range(300)]
    together = towers.encode_texts(texts)
    torch.testing.assert_close(together[[0, 299]], towers.encode_texts([texts[0], texts[299]]))


def test_towers_refuse_a_picture_without_a_batch(towers):
    with pytest.raises(IceError, match="batch"):
        towers.encode_images(torch.zeros(3, 8, 8))


def test_the_fingerprint_changes_with_any_weight(clip):
    state = clip.state_dict()
    changed = {k: v.clone() for k, v in state.items()}
    changed["visual.proj"][0, 0] += 1
    assert weights_fingerprint(state) != weights_fingerprint(changed)
    assert weights_fingerprint(state) == weights_fingerprint(dict(reversed(state.items())))


def test_opens_a_model_from_a_safetensors_file(clip, tmp_path, monkeypatch):
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    monkeypatch.setattr(open_clip, "list_models", lambda: ["tiny"])
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: config)
    path = tmp_path / "weights.safetensors"
    save_file(clip.state_dict(), path)
    opened = load_open_clip(f"tiny={path}")
    assert opened.fingerprint == weights_fingerprint(clip.state_dict())
    assert load_open_clip("tiny", str(path)).fingerprint == opened.fingerprint
    save_file({k: v for k, v in clip.state_dict().items() if k != "visual.proj"}, path)
    with pytest.raises(IceError, match=r"visual\.proj"):
        load_open_clip(f"tiny={path}")
    path.write_bytes(b"damaged")
    with pytest.raises(IceError, match="cannot be read"):
        load_open_clip(f"tiny={path}")


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-L-41", None, "near names: .*ViT-L-14"),
        ("vit-l", None, "near names: ViT-L-14, "),
        ("weights.safetensors", None, "which model"),
        ("ViT-B-32=absent.safetensors", None, "no file absent"),
        ("ViT-B-32=weights.bin", None, "not a .safetensors"),
        ("ViT-B-32", None, "there are: .*openai.*name the objects yourself"),
        ("ViT-B-32", "nonsense", "'nonsense'"),
        ("ViT-B-16-SigLIP", "webli", "not a plain CLIP"),
    ],
)
def test_what_cannot_be_opened_is_said_with_the_remedy(name, pretrained, message):
    with pytest.raises(IceError, match=message):
        load_open_clip(name, pretrained)


def test_a_failed_download_names_the_way_out(monkeypatch):
    def offline(*_args: object, **_kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(IceError, match=r"0\.6 GB.*NAME=FILE.safetensors.*name the objects yourself"):
        load_open_clip("ViT-B-32", "openai")


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("ViT-L-14-quickgelu/openai", 1.7),
        ("ViT-H-14/laion2b_s32b_b79k", 3.9),
        ("ViT-bigG-14/laion2b_s39b_b160k", 10.2),
        ("ViT-L-14=file.safetensors", 0),
        ("ViT-L-14/nonsense", 0),
        ("ViT-L-14", 0),
    ],
)
def test_what_would_be_downloaded_is_known_by_its_size(monkeypatch, name, gigabytes):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert download_size(name) / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_weights_that_are_on_the_disk_are_not_downloaded(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "there")
    assert download_size("ViT-L-14-quickgelu/openai") == 0
