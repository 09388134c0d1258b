"""The bundled model through its own loader: what training saw is what users get."""

from __future__ import annotations

import open_clip
import pytest
import torch

from ice_core.attributes.reading import read_with_clip
from ice_core.concepts import Concept, ConceptSet
from ice_core.model.backbone import Prompt, Token
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.standalone.ldm import text_state_to_open_clip
from ice_core.world.architecture import CLIP_CONFIG, UNET_CONFIG
from ice_core.world.bundled import bundled_retriever, load_bundled_backbone, load_bundled_towers, world_axes
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene


@pytest.fixture(scope="module")
def backbone():
    return load_bundled_backbone()


def test_checkpoint_says_what_it_is(backbone):
    assert dict(backbone.encoders) == {"clip_l": CLIP_CONFIG["embed_dim"]}
    assert (backbone.factor, backbone.channels, backbone.multiple, backbone.native_size) == (8, 8, 16, 128)
    assert backbone.prediction == "v_prediction"
    assert backbone.architecture == "stable-diffusion-v1"
    assert backbone.unet.config.block_out_channels == UNET_CONFIG["block_out_channels"]


def test_text_features_equal_open_clips_own_tower(backbone):
    """The U-Net was trained on open_clip's hidden states; the loader runs them through transformers."""
    tower = open_clip.CLIP(**CLIP_CONFIG).eval()
    tower.load_state_dict(text_state_to_open_clip(backbone.text.state()), strict=False)
    text = "a photo of a red metal ball on grass"
    ids = torch.full((1, 77), 49407)
    pieces = [49406, *open_clip.SimpleTokenizer().encode(text), 49407]
    ids[0, : len(pieces)] = torch.tensor(pieces)
    with torch.no_grad():
        x = tower.token_embedding(ids) + tower.positional_embedding
        hidden = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask))
        features = backbone.encode_prompts([Prompt((text,))])
    torch.testing.assert_close(features.context, hidden, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features.pooled[0], hidden[0, len(pieces) - 1], atol=1e-4, rtol=1e-4)


def test_pictures_survive_the_autoencoder(backbone):
    images = render([sample_scene(i) for i in range(8)]).images
    with torch.no_grad():
        latents = backbone.encode_image(images)
        again = backbone.decode_latent(latents)
    assert latents.shape == (8, 8, 16, 16)
    assert 0.5 < latents.std() < 2
    assert -10 * (again - images).pow(2).mean().log10() > 30


def test_a_words_own_row_as_a_token_draws_the_same_picture(backbone):
    """A learned token stands exactly where a word would."""
    config = SamplingConfig(steps=3)
    word = sample(backbone, [Prompt(("a photo of a", "ball"))], config, torch.Generator().manual_seed(0))
    token = Token("t", backbone.word_rows("ball"))
    same = sample(backbone, [Prompt(("a photo of a", token))], config, torch.Generator().manual_seed(0))
    torch.testing.assert_close(word, same, atol=1e-5, rtol=1e-5)


def test_retrieval_names_a_lone_object(backbone):
    """Easy pictures, most must be right; the benchmark measures the rest."""
    retriever = bundled_retriever(backbone)
    scenes = [sample_scene(6_000_000 + i, count=1) for i in range(12)]
    images = render(scenes).images
    first = [retriever.retrieve(image)[0].label for image in images]
    right = sum(label == s.objects[0].kind for label, s in zip(first, scenes, strict=True))
    assert right >= 10


def test_clip_matches_pictures_with_their_descriptions(backbone):
    towers = load_bundled_towers(backbone)
    scenes = [sample_scene(6_100_000 + i, count=1) for i in range(16)]
    texts = [
        f"a photo of a {o.pattern} {o.color} {o.material} {o.kind}" for o in (s.objects[0] for s in scenes)
    ]
    similarity = towers.encode_images(render(scenes).images) @ towers.encode_texts(texts).T
    assert (similarity.argmax(1) == torch.arange(16)).sum() >= 12


def test_properties_of_an_object_beside_others_are_read(backbone):
    """Nearly all of easy pictures; the benchmark measures the rest."""
    towers, axes = load_bundled_towers(backbone), world_axes()
    right = []
    for seed in (*range(6_100_000, 6_100_030), *range(6_300_000, 6_300_030)):
        scene = sample_scene(seed, count=2)
        rendered = render([scene])
        masks = rendered.masks[0, :2]
        concepts = tuple(Concept(str(i), scene.objects[i].kind, masks[i], 1.0) for i in range(2))
        found = read_with_clip(
            towers, ConceptSet(rendered.images[0], concepts, ~masks.any(0)), [*axes.values()]
        )
        right += [
            scene.objects[i].is_called(axis, found[str(i)][axis].value or "")
            for i in range(2)
            for axis in axes
        ]
    assert sum(right) >= 0.92 * len(right)
