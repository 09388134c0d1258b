from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from tiny_checkpoint import Tiny, tiny
from torch import Tensor

from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, Token
from ice_core.standalone import StandaloneBackbone, load_checkpoint
from ice_core.standalone.ldm import to_original_layout
from ice_core.standalone.stable_diffusion_1 import infer
from ice_core.standalone.tokenizer import piece_ids
from ice_core.world.architecture import METADATA, UNET_CONFIG, VAE_CONFIG


@pytest.fixture(scope="module", params=[False, True], ids=["bundled-like", "sd1-like"])
def model(request: pytest.FixtureRequest) -> Tiny:
    return tiny(request.param)


@pytest.fixture(scope="module")
def path(model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.write(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def backbone(path: Path) -> StandaloneBackbone:
    return load_checkpoint(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> StandaloneBackbone:
    return load_checkpoint(tiny(like_sd1=False).write(tmp_path_factory.mktemp("small") / "small.safetensors"))


def weights(backbone: StandaloneBackbone) -> dict[str, Tensor]:
    modules = {"unet": backbone.unet, "vae": backbone.vae, "text": backbone.text.module}
    return {f"{n}.{k}": v.clone() for n, m in modules.items() for k, v in m.state_dict().items()}


def test_every_weight_is_loaded(model: Tiny, backbone: StandaloneBackbone) -> None:
    pairs = ((backbone.unet, model.unet), (backbone.vae, model.vae), (backbone.text.module, model.text))
    for loaded, source in pairs:
        ours, theirs = loaded.state_dict(), source.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], v) for k, v in theirs.items())
        assert not loaded.training
        assert not any(p.requires_grad for p in loaded.parameters())


def test_outputs_equal_those_of_the_source_modules(model: Tiny, backbone: StandaloneBackbone) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 32, 48, generator=rng)
    latents = backbone.encode_image(images)
    encoded = model.vae.encode(images * 2 - 1)
    sd1 = isinstance(model.vae, AutoencoderKL)
    scale = 0.18215 if sd1 else 1.0
    torch.testing.assert_close(latents, (encoded.latent_dist.mean if sd1 else encoded.latents) * scale)
    pictures = (model.vae.decode(latents / scale).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(backbone.decode_latent(latents), pictures)
    text = backbone.encode_prompts([Prompt(("a photo of a ball",)), Prompt(("sand",))])
    ids = [[49406, *piece_ids(words), 49407] for words in ("a photo of a ball", "sand")]
    padded = torch.tensor([row + [49407] * (77 - len(row)) for row in ids])
    hidden = model.text(input_ids=padded).last_hidden_state
    assert torch.equal(text.context, hidden)
    assert torch.equal(text.pooled, torch.stack([hidden[0, 6], hidden[1, 2]]))
    times = torch.tensor([3, 900])
    theirs = model.unet(latents, times, encoder_hidden_states=text.context).sample
    torch.testing.assert_close(backbone.predict(latents, times, text), theirs, atol=1e-4, rtol=1e-4)


def test_facts_of_a_stable_diffusion_1_file_without_metadata(tmp_path: Path) -> None:
    backbone = load_checkpoint(tiny(like_sd1=True).write(tmp_path / "some-model.safetensors"))
    assert backbone.name == "some-model"
    assert (backbone.native_size, backbone.prediction) == (512, "epsilon")
    assert (backbone.factor, backbone.multiple, backbone.channels) == (2, 8, 4)
    assert backbone.encoders == {"clip_l": 64}
    assert backbone.alphas_cumprod.shape == (1000,)
    # The schedule's published ends: sqrt((1 - a) / a) runs from 0.0292 to 14.6146.
    sigmas = ((1 - backbone.alphas_cumprod) / backbone.alphas_cumprod).sqrt()
    torch.testing.assert_close(sigmas[[0, -1]], torch.tensor([0.0292, 14.6146]), atol=1e-4, rtol=0)


def test_metadata_overrides_what_weights_cannot_tell(tmp_path: Path) -> None:
    model = tiny(like_sd1=False)
    save_file(model.state, tmp_path / "v.safetensors", model.metadata | {"ice.prediction": "v_prediction"})
    backbone = load_checkpoint(tmp_path / "v.safetensors")
    assert (backbone.native_size, backbone.prediction) == (32, "v_prediction")
    heads = {p.heads for n, p in backbone.unet.named_modules() if n.endswith(("attn1", "attn2"))}
    assert heads == {4}


def test_the_bundled_architecture_is_recognised_from_its_shapes() -> None:
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**UNET_CONFIG), AutoencoderTiny(**VAE_CONFIG)
        text = {
            "embeddings.token_embedding.weight": torch.empty(49408, 128),
            "embeddings.position_embedding.weight": torch.empty(77, 128),
            "encoder.layers.0.mlp.fc1.weight": torch.empty(512, 128),
        }
    details = infer({k: tuple(v.shape) for k, v in to_original_layout(unet, vae, text).items()}, METADATA)
    for key in UNET_CONFIG.keys() & details.unet.keys():
        assert details.unet[key] == UNET_CONFIG[key], key
    assert details.vae_kind == "tiny"
    assert (details.factor, details.multiple, details.native_size) == (8, 16, 128)


def test_half_precision_files_are_loaded_in_full_precision(tmp_path: Path) -> None:
    model = tiny(like_sd1=False)
    save_file({k: v.half() for k, v in model.state.items()}, tmp_path / "half.safetensors", model.metadata)
    backbone = load_checkpoint(tmp_path / "half.safetensors")
    assert {p.dtype for p in backbone.unet.parameters()} == {torch.float32}
    assert torch.equal(backbone.unet.conv_in.weight, model.unet.conv_in.weight.half().float())


def test_a_safe_pickle_and_the_oldest_text_keys_load_too(tmp_path: Path) -> None:
    model = tiny(like_sd1=True)
    state = {k.replace(".text_model.", "."): v for k, v in model.state.items()}
    torch.save({"state_dict": state, "global_step": 1}, tmp_path / "old.ckpt")
    assert torch.equal(load_checkpoint(tmp_path / "old.ckpt").unet.conv_in.weight, model.unet.conv_in.weight)


def test_the_fingerprint_is_the_files_hash(path: Path, backbone: StandaloneBackbone) -> None:
    assert backbone.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_text_tower_can_be_taken_out(model: Tiny, backbone: StandaloneBackbone) -> None:
    state = backbone.text.state()
    assert state.keys() == model.text_state.keys()
    assert all(torch.equal(state[k], v) for k, v in model.text_state.items())


def test_a_token_with_a_words_rows_reads_as_the_word(backbone: StandaloneBackbone) -> None:
    token = Token("it", backbone.word_rows("polka dots"))
    words = backbone.encode_prompts([Prompt(("a ball with polka dots on sand",))])
    mixed = backbone.encode_prompts([Prompt(("a ball with", token, "on sand"))])
    assert torch.equal(words.context, mixed.context)
    assert torch.equal(words.pooled, mixed.pooled)
    n = len(token.rows["clip_l"])
    assert mixed.columns == (((1, 2, 3), tuple(range(4, 4 + n)), (4 + n, 5 + n)),)


def test_rows_of_several_prompts_do_not_mix(backbone: StandaloneBackbone) -> None:
    ball, cube = (Token(word, backbone.word_rows(word)) for word in ("ball", "cube"))
    prompts = [Prompt((ball, cube)), Prompt(("a", cube)), Prompt(("sand",))]
    together = backbone.encode_prompts(prompts)
    plain = backbone.encode_prompts([Prompt((p,)) for p in ("ball cube", "a cube", "sand")])
    assert torch.equal(together.context, plain.context)
    assert torch.equal(together.pooled, plain.pooled)


@pytest.mark.parametrize("contexts", [0, 1, 3])
def test_prompts_without_a_context_have_the_same_pooled_features(
    backbone: StandaloneBackbone, contexts: int
) -> None:
    prompts = [
        Prompt(("a photo of a", Token("it", backbone.word_rows("ball")))),
        Prompt(("cube",)),
        Prompt(()),
    ]
    every, some = backbone.encode_prompts(prompts), backbone.encode_prompts(prompts, contexts)
    assert len(some.context) == contexts
    if contexts:
        torch.testing.assert_close(some.context, every.context[:contexts])
    torch.testing.assert_close(some.pooled, every.pooled)
    assert some.columns == every.columns


def test_gradients_reach_the_token_and_leave_the_weights_alone(small: StandaloneBackbone) -> None:
    before = weights(small)
    rows = small.word_rows("ball")["clip_l"].clone().requires_grad_()
    latents = torch.zeros(1, 4, 4, 6, requires_grad=True)
    text = small.encode_prompts([Prompt(("a photo of", Token("it", {"clip_l": rows})))])
    (small.predict(latents, torch.tensor([500]), text).square().sum() + text.pooled.square().sum()).backward()
    assert rows.grad is not None
    assert rows.grad.abs().sum() > 0
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0
    after = weights(small)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not any(p.requires_grad or p.grad is not None for p in small.text.module.parameters())


def test_an_error_in_the_text_encoder_leaves_no_trace(
    small: StandaloneBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, prompt = weights(small), Prompt(("ball",))
    features = small.encode_prompts([prompt])
    layer = next(m for n, m in small.text.module.named_modules() if n.endswith("final_layer_norm"))
    with monkeypatch.context() as patch:
        patch.setattr(layer, "forward", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            small.encode_prompts([Prompt((Token("it", {"clip_l": torch.ones(1, 64)}),))])
    assert torch.equal(features.context, small.encode_prompts([prompt]).context)
    after = weights(small)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_prompt_that_just_fits_is_taken_and_one_more_is_not(small: StandaloneBackbone) -> None:
    token = Token("it", {"clip_l": torch.zeros(3, 64)})
    assert small.encode_prompts([Prompt(("ball " * 72, token))]).columns[0][1] == (73, 74, 75)
    with pytest.raises(IceError, match=r"has 76 tokens, this model takes 75"):
        small.encode_prompts([Prompt(("ball " * 73, token))])


@pytest.mark.parametrize("rows", [{"clip_l": torch.zeros(1, 768)}, {"clip_g": torch.zeros(1, 64)}])
def test_a_token_of_another_base_model_is_refused(small: StandaloneBackbone, rows: dict[str, Tensor]) -> None:
    with pytest.raises(IceError, match="made for another base model"):
        small.encode_prompts([Prompt((Token("it", rows),))])


def test_a_picture_of_odd_sides_is_refused_with_the_multiple(small: StandaloneBackbone) -> None:
    with pytest.raises(IceError, match=r"24 x 16.*multiples of 16"):
        small.encode_image(torch.zeros(1, 3, 16, 24))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IceError, match=r"no model file at .*absent\.safetensors"):
        load_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 1000, 0.5])
def test_a_cut_file_says_to_download_again(tmp_path: Path, keep: float) -> None:
    whole = tiny(like_sd1=False).write(tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    with pytest.raises(IceError, match="cut short; download it again"):
        load_checkpoint(tmp_path / "cut.safetensors")


def test_a_pickle_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": Path("anything")}, tmp_path / "bad.ckpt")
    with pytest.raises(IceError, match=r"as \.safetensors"):
        load_checkpoint(tmp_path / "bad.ckpt")


FOREIGN = {
    "no VAE and no CLIP-G": ["conditioner.embedders.0.transformer.text_model.x", "model.diffusion_model.x"],
    "Z-Image": ["model.diffusion_model.noise_refiner.0.attention.qkv.weight"],
    "Qwen-Image": ["transformer_blocks.0.img_mlp.net.0.proj.weight"],
    "Stable Diffusion 3": ["model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight"],
    "a Flux model": ["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"],
    "has no VAE": ["cond_stage_model.model.ln_final.weight", "model.diffusion_model.out.2.weight"],
    "video": ["model.diffusion_model.input_blocks.1.1.time_stack.0.norm1.weight"],
    "a LoRA": ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"],
    "textual-inversion": ["emb_params"],
    "diffusers' layout": ["down_blocks.0.resnets.0.conv1.weight"],
    "no U-Net and no text encoder": ["first_stage_model.encoder.conv_in.weight"],
}


@pytest.mark.parametrize("found", FOREIGN)
def test_other_kinds_of_file_are_named_and_the_supported_kind_said(tmp_path: Path, found: str) -> None:
    save_file({k: torch.zeros(2, 2) for k in FOREIGN[found]}, tmp_path / "other.safetensors")
    with pytest.raises(IceError, match=f"{found}.*supported are Stable Diffusion 1"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_an_inpainting_model_is_named() -> None:
    shapes = {k: tuple(v.shape) for k, v in tiny(like_sd1=True).state.items()}
    shapes["model.diffusion_model.input_blocks.0.0.weight"] = (32, 9, 3, 3)
    with pytest.raises(IceError, match="inpainting"):
        infer(shapes, {})


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    shapes = {k: tuple(v.shape) for k, v in tiny(like_sd1=True).state.items()}
    with pytest.raises(IceError, match=r"ice\.unet_heads"):
        infer(shapes, {"ice.unet_heads": "7"})
    with pytest.raises(IceError, match=r"ice\.text_heads='many'"):
        infer(shapes, {"ice.text_heads": "many"})


def test_a_file_without_some_weights_names_the_first(tmp_path: Path) -> None:
    state = dict(tiny(like_sd1=True).state)
    del state["model.diffusion_model.middle_block.0.in_layers.2.bias"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(IceError, match=r"lacks 1 weights.*middle_block\.0\.in_layers\.2\.bias"):
        load_checkpoint(tmp_path / "part.safetensors")


def test_a_unet_with_more_than_stable_diffusion_1_is_refused(tmp_path: Path) -> None:
    state = tiny(like_sd1=True).state | {"model.diffusion_model.motion.weight": torch.zeros(1)}
    save_file(state, tmp_path / "more.safetensors")
    with pytest.raises(IceError, match=r"motion\.weight"):
        load_checkpoint(tmp_path / "more.safetensors")
