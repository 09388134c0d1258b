"""Every family on a small random model: read from its file, told apart by its weights, and computed as the
modules that the file was written from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import save_file
from tiny_families import FAMILIES, NATIVE_SIZE, TinyFamily, tiny_family
from torch import Tensor

from ice_core.concepts import mean_row
from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt, Token
from ice_core.standalone import StandaloneBackbone, load_checkpoint
from ice_core.standalone.tokenizer import END, START, piece_ids

EXPECTED = {
    "sd1": ("stable-diffusion-v1", "epsilon", {"clip_l": 64}, 16),
    "sd2": ("stable-diffusion-v2-512", "epsilon", {"clip_h": 64}, 64),
    "sd2-v": ("stable-diffusion-v2-768-v", "v_prediction", {"clip_h": 64}, 64),
    "sdxl": ("stable-diffusion-xl-v1-base", "epsilon", {"clip_l": 64, "clip_g": 128}, 32),
    "sdxl-v": ("stable-diffusion-xl-v1-base", "v_prediction", {"clip_l": 64, "clip_g": 128}, 32),
}
NOISY = torch.randn(2, 4, 8, 16, generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([20, 700])
PADDING = {"clip_l": END, "clip_h": 0, "clip_g": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> TinyFamily:
    return tiny_family(request.param)


@pytest.fixture(scope="module")
def backbone(model: TinyFamily, folder: Path) -> StandaloneBackbone:
    return _load(model.name, folder)


@cache
def _load(name: str, folder: Path) -> StandaloneBackbone:
    return load_checkpoint(tiny_family(name).write(folder / f"{name}.safetensors"))


def text_of(model: TinyFamily, text: str) -> tuple[Tensor, Tensor]:
    """Context and pooled features [1, ...] as the families' papers and configurations have them."""
    contexts = []
    for name, encoder in model.texts.items():
        ids = [START, *piece_ids(text), END]
        padded = torch.tensor([ids + [PADDING[name]] * (77 - len(ids))])
        out = encoder.text_model(input_ids=padded, output_hidden_states=True)
        last = encoder.text_model.final_layer_norm(out.hidden_states[-1])
        pooled = last[:, len(ids) - 1]
        early = out.hidden_states[-1 if model.name == "sd1" else -2]
        contexts.append(early if name == "clip_g" or len(model.texts) > 1 else _norm(encoder, early))
        if model.name != "sd1":
            pooled = encoder.text_projection(pooled)
    return torch.cat(contexts, -1), pooled


def _norm(encoder: torch.nn.Module, hidden: Tensor) -> Tensor:
    return encoder.text_model.final_layer_norm(hidden)  # type: ignore[no-any-return, union-attr, operator]


def test_it_is_known_by_its_weights(model: TinyFamily, backbone: StandaloneBackbone) -> None:
    found = (backbone.architecture, backbone.prediction, dict(backbone.encoders), backbone.multiple)
    assert found == EXPECTED[model.name]
    assert backbone.native_size == NATIVE_SIZE


def test_text_is_read_as_the_family_reads_it(model: TinyFamily, backbone: StandaloneBackbone) -> None:
    context, pooled = text_of(model, "a striped ball on sand")
    ours = backbone.encode_prompts([Prompt(("a striped ball on sand",))])
    torch.testing.assert_close(ours.context, context, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.pooled, pooled, atol=1e-5, rtol=1e-5)


def test_the_prediction_is_that_of_the_source(model: TinyFamily, backbone: StandaloneBackbone) -> None:
    context, pooled = text_of(model, "ball")
    added = None
    if "clip_g" in model.texts:
        sizes = torch.tensor([[64.0, 128, 0, 0, 64, 128]] * 2)
        added = {"text_embeds": pooled.expand(2, -1), "time_ids": sizes}
    theirs = model.unet(NOISY, TIMES, context.expand(2, -1, -1), added_cond_kwargs=added).sample
    ours = backbone.predict(NOISY, TIMES, backbone.encode_prompts([Prompt(("ball",))]))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_latents_have_the_families_scale(model: TinyFamily, backbone: StandaloneBackbone) -> None:
    image = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    latents = backbone.encode_image(image)
    torch.testing.assert_close(latents, model.vae.encode(image * 2 - 1).latents)
    assert backbone.decode_latent(latents).shape == image.shape


def test_the_schedule_ends_where_the_family_was_trained_to(
    model: TinyFamily, backbone: StandaloneBackbone
) -> None:
    left = float(backbone.alphas_cumprod[-1])
    assert left == pytest.approx(4.8973e-8 if model.name == "sdxl-v" else 4.6601e-3, rel=1e-4)
    assert float(backbone.alphas_cumprod[0]) == pytest.approx(0.99915)
    assert bool((backbone.alphas_cumprod.diff() < 0).all())


def test_a_token_with_a_words_rows_reads_as_the_word(backbone: StandaloneBackbone) -> None:
    token = Token("it", backbone.word_rows("polka dots"))
    assert {name: rows.shape[1] for name, rows in token.rows.items()} == backbone.encoders
    words = backbone.encode_prompts([Prompt(("a ball with polka dots on sand",))])
    mixed = backbone.encode_prompts([Prompt(("a ball with", token, "on sand"))])
    assert torch.equal(words.context, mixed.context)
    assert torch.equal(words.pooled, mixed.pooled)
    assert words.extra.keys() == mixed.extra.keys()
    n = len(next(iter(token.rows.values())))
    assert mixed.columns == (((1, 2, 3), tuple(range(4, 4 + n)), (4 + n, 5 + n)),)


def test_prompts_without_a_context_have_the_same_pooled_features(backbone: StandaloneBackbone) -> None:
    prompts = [Prompt(("a photo of a", Token("it", backbone.word_rows("ball")))), Prompt(("cube",))]
    every, some = backbone.encode_prompts(prompts), backbone.encode_prompts(prompts, 1)
    torch.testing.assert_close(some.context, every.context[:1])
    torch.testing.assert_close(some.pooled, every.pooled)
    assert all(len(value) == 2 for value in some.extra.values())


def test_gradients_reach_the_rows_of_every_encoder(backbone: StandaloneBackbone) -> None:
    rows = {k: v.clone().requires_grad_() for k, v in mean_row(backbone.word_rows("ball")).items()}
    text = backbone.encode_prompts([Prompt(("a photo of", Token("it", rows)))])
    backbone.predict(NOISY, TIMES, text).square().sum().backward()
    for name, row in rows.items():
        assert row.grad is not None, name
        assert row.grad.abs().sum() > 0, name


def test_recorded_attention_leaves_the_answer_as_it_is(backbone: StandaloneBackbone) -> None:
    text, recorder = backbone.encode_prompts([Prompt(("a ball",))]), AttentionRecorder()
    assert torch.equal(backbone.predict(NOISY, TIMES, text, recorder), backbone.predict(NOISY, TIMES, text))
    for size, maps in recorder.recorded("cross").items():
        torch.testing.assert_close(maps.sum(-1), torch.ones(2, size[0] * size[1]))


def test_diffusers_own_converter_reads_back_the_unet(model: TinyFamily) -> None:
    converted = convert_ldm_unet_checkpoint(model.state, dict(model.unet.config))
    source = model.unet.state_dict()
    assert converted.keys() == source.keys()
    assert all(torch.equal(converted[key].view_as(value), value) for key, value in source.items())


def test_an_encoder_without_its_rows_is_refused() -> None:
    backbone = tiny_backbone("sdxl")
    rows = backbone.word_rows("ball")
    with pytest.raises(IceError, match=r"'it' has 1 for clip_l, 0 for clip_g rows"):
        backbone.encode_prompts([Prompt((Token("it", {"clip_l": rows["clip_l"]}),))])
    twice = {"clip_l": rows["clip_l"], "clip_g": rows["clip_g"].repeat(2, 1)}
    with pytest.raises(IceError, match=r"as many for each text encoder"):
        backbone.encode_prompts([Prompt((Token("it", twice),))])


@cache
def tiny_backbone(name: str) -> StandaloneBackbone:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return load_checkpoint(tiny_family(name).write(Path(folder) / "tiny.safetensors"))


@pytest.mark.parametrize("said", ["v", "epsilon"])
def test_a_file_that_says_what_it_predicts_is_believed(tmp_path: Path, said: str) -> None:
    contrary = tiny_family("sd2" if said == "v" else "sd2-v")
    save_file(contrary.state, tmp_path / "said.safetensors", {"modelspec.prediction_type": said})
    backbone = load_checkpoint(tmp_path / "said.safetensors")
    assert (backbone.prediction, backbone.native_size) == (
        ("v_prediction", 768) if said == "v" else ("epsilon", 512)
    )


def test_sd_turbos_names_of_the_text_encoder_are_known(tmp_path: Path) -> None:
    state = {
        key.replace("cond_stage_model.model.", "conditioner.embedders.0.model."): value
        for key, value in tiny_family("sd2").state.items()
    }
    save_file(state, tmp_path / "turbo.safetensors")
    assert load_checkpoint(tmp_path / "turbo.safetensors").encoders == {"clip_h": 64}


def _with(name: str, changes: dict[str, Tensor | None]) -> dict[str, Tensor]:
    state = {**tiny_family(name).state, **changes}
    return {key: value for key, value in state.items() if value is not None}


U = "model.diffusion_model."
REFUSED = {
    "an inpainting": ("sdxl", {U + "input_blocks.0.0.weight": torch.zeros(64, 9, 3, 3)}),
    "a depth-to-image": ("sd2", {U + "input_blocks.0.0.weight": torch.zeros(64, 5, 3, 3)}),
    "SSD-1B, Vega or KOALA": ("sdxl", {U + "middle_block.1.norm.weight": None}),
    r"Playground v2\.5": ("sdxl", {"edm_mean": torch.zeros(4)}),
    "CosXL": ("sdxl", {"edm_vpred.sigma_max": torch.zeros(())}),
    "takes 99 numbers beside the text": ("sdxl", {U + "label_emb.0.0.weight": torch.zeros(256, 99)}),
    r"no part of Stable Diffusion XL, first .*time_embed\.cond_proj": (
        "sdxl",
        {U + "time_embed.cond_proj.weight": torch.zeros(64, 256)},
    ),
    r"lacks the weight cond_stage_model\.model\.text_projection": (
        "sd2",
        {"cond_stage_model.model.text_projection": None},
    ),
    r"lacks the weight cond_stage_model\.model\.transformer\.resblocks\.1\.ln_1\.weight": (
        "sd2",
        {"cond_stage_model.model.transformer.resblocks.1.ln_1.weight": None},
    ),
    "no CLIP-G text encoder": (
        "sdxl",
        {key: None for key in tiny_family("sdxl").state if key.startswith("conditioner.embedders.1")},
    ),
}


@pytest.mark.parametrize("found", REFUSED)
def test_relatives_that_cannot_be_used_are_named(tmp_path: Path, found: str) -> None:
    name, changes = REFUSED[found]
    save_file(_with(name, changes), tmp_path / "other.safetensors")
    with pytest.raises(IceError, match=found):
        load_checkpoint(tmp_path / "other.safetensors")


@pytest.mark.parametrize(("width", "what"), [(1280, "the refiner of Stable"), (1024, "unCLIP")])
def test_unets_that_are_told_other_things_are_named(tmp_path: Path, width: int, what: str) -> None:
    state = {
        U + "label_emb.0.0.weight": torch.zeros(4, 4),
        U + "middle_block.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(4, width),
        "conditioner.embedders.0.model.ln_final.weight": torch.zeros(4),
    }
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(IceError, match=f"{what}.*supported are Stable Diffusion 1"):
        load_checkpoint(tmp_path / "other.safetensors")
