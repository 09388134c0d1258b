"""Files of every family as diffusers loads them, and as AUTOMATIC1111 and Forge name what they hold."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from loras import random_lora
from pipelines import pipeline
from safetensors.torch import load_file
from tiny_families import TinyFamily, tiny_family
from tokens import learned

from ice_core.files.embeddings import save_token
from ice_core.files.lora import load_lora, save_lora
from ice_core.model.backbone import Prompt, Token
from ice_core.standalone import StandaloneBackbone, load_checkpoint

NOISY = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([20, 700])


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def model(request: pytest.FixtureRequest) -> TinyFamily:
    return tiny_family(request.param)


@pytest.fixture(scope="module")
def backbone(model: TinyFamily, tmp_path_factory: pytest.TempPathFactory) -> StandaloneBackbone:
    return load_checkpoint(model.write(tmp_path_factory.mktemp("model") / f"{model.name}.safetensors"))


@pytest.fixture(scope="module")
def theirs(model: TinyFamily, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return pipeline(model, tmp_path_factory.mktemp("tokenizer"))


def test_load_textual_inversion_gives_our_text(
    backbone: StandaloneBackbone, theirs: Any, tmp_path: Path
) -> None:
    rng = torch.Generator().manual_seed(3)
    token = Token("ball", {e: torch.randn(2, w, generator=rng) for e, w in backbone.encoders.items()})
    path = save_token(token, tmp_path / "ball.safetensors", backbone.architecture, "")
    if len(backbone.encoders) == 1:
        theirs.load_textual_inversion(str(tmp_path), weight_name=path.name, token="<ball>")
        context, _ = theirs.encode_prompt("a photo of <ball> on sand", "cpu", 1, False)
        pooled = None
    else:
        # As its users do: either tensor for its own encoder.
        for key, part in (("clip_l", ""), ("clip_g", "_2")):
            encoder, tokenizer = (getattr(theirs, name + part) for name in ("text_encoder", "tokenizer"))
            theirs.load_textual_inversion(
                load_file(path)[key], token="<ball>", text_encoder=encoder, tokenizer=tokenizer
            )
        found = theirs.encode_prompt("a photo of <ball> on sand", do_classifier_free_guidance=False)
        context, pooled = found[0], found[2]
    ours = backbone.encode_prompts([Prompt(("a photo of", token, "on sand"))])
    torch.testing.assert_close(context, ours.context, atol=1e-4, rtol=0)
    if pooled is not None:
        torch.testing.assert_close(pooled, ours.pooled, atol=1e-4, rtol=0)


def test_load_lora_weights_gives_our_prediction(
    backbone: StandaloneBackbone, theirs: Any, tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="diffusers loads LoRAs by peft, which is not installed")
    lora = random_lora(backbone, text=True)
    lora = dataclasses.replace(lora, up={key: 0.3 * value for key, value in lora.up.items()})
    path = save_lora(lora, tmp_path / "lora.safetensors", learned())
    text = backbone.encode_prompts([Prompt(("a ball",))]).repeat(2)
    added = None
    if text.extra:
        sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
        added = {"text_embeds": text.extra["text_embeds"], "time_ids": sizes}
    theirs.load_lora_weights(str(tmp_path), weight_name=path.name)
    with torch.no_grad():
        found = theirs.unet(NOISY, TIMES, text.context, added_cond_kwargs=added).sample
        ours = backbone.predict(NOISY, TIMES, text, lora=load_lora(path))
        plain = backbone.predict(NOISY, TIMES, text)
    torch.testing.assert_close(found, ours, atol=1e-3, rtol=0)
    assert (ours - plain).abs().max() > 1e-2
    said = backbone.encode_prompts([Prompt(("a ball",))], lora=load_lora(path))
    options = {} if text.extra else {"device": "cpu", "num_images_per_prompt": 1}
    with torch.no_grad():
        heard = theirs.encode_prompt("a ball", do_classifier_free_guidance=False, **options)
    torch.testing.assert_close(heard[0], said.context, atol=1e-4, rtol=0)
    if text.extra:
        torch.testing.assert_close(heard[2], said.pooled, atol=1e-4, rtol=0)
    assert (said.context - text.context[:1]).abs().max() > 1e-2


def test_automatic1111_finds_a_layer_for_every_key(backbone: StandaloneBackbone, model: TinyFamily) -> None:
    """Its U-Net has the original names; of kohya's it makes `input_blocks_<1 + 3 b + i>_1_...` and so on,
    counting two residual blocks per level, as all published models have."""
    start = "model.diffusion_model."
    layers = {
        key.removeprefix(start).removesuffix(".weight").replace(".", "_")
        for key in model.state
        if key.startswith(start)
    }
    places = (
        (r"lora_unet_down_blocks_(\d)_attentions_(\d)_(.+)", "input_blocks", 1),
        (r"lora_unet_up_blocks_(\d)_attentions_(\d)_(.+)", "output_blocks", 0),
    )
    for key in backbone.lora_targets:
        name = key.replace("lora_unet_mid_block_attentions_0_", "middle_block_1_")
        for pattern, block, offset in places:
            if found := re.fullmatch(pattern, key):
                name = f"{block}_{offset + 3 * int(found[1]) + int(found[2])}_1_{found[3]}"
        assert name in layers, key


def test_textual_inversions_have_the_keys_that_each_tool_looks_for(
    backbone: StandaloneBackbone, tmp_path: Path
) -> None:
    token = Token("ball", {e: torch.ones(2, w) for e, w in backbone.encoders.items()})
    tensors = load_file(save_token(token, tmp_path / "ball.safetensors", backbone.architecture, ""))
    wanted = {"clip_l": (2, 64), "clip_g": (2, 128)} if len(token.rows) == 2 else {"emb_params": (2, 64)}
    assert {key: tuple(value.shape) for key, value in tensors.items()} == wanted
    assert {value.dtype for value in tensors.values()} == {torch.float32}
