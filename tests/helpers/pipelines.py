"""diffusers pipelines of the small random models, with CLIP's tokenizer: nothing is downloaded."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from tiny_families import TinyFamily
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


def pipeline(model: TinyFamily, folder: Path) -> Any:
    """A pipeline of copies of the model's parts; folder: for the tokenizer's files."""
    unet, vae, scheduler = (
        copy.deepcopy(model.unet),
        model.vae,
        DDIMScheduler(steps_offset=1, clip_sample=False),
    )
    if "clip_g" in model.texts:
        return StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=_plain(model.texts["clip_l"]),
            text_encoder_2=copy.deepcopy(model.texts["clip_g"]),
            tokenizer=_tokenizer(folder / "one", "<|endoftext|>"),
            tokenizer_2=_tokenizer(folder / "two", "!"),
            unet=unet,
            scheduler=scheduler,
            add_watermarker=False,
        )
    (name,) = model.texts
    return StableDiffusionPipeline(
        vae=vae,
        # As diffusers converts Stable Diffusion 2: without the last layer, which its context leaves out.
        text_encoder=_plain(model.texts[name], left_out=int(name == "clip_h")),
        tokenizer=_tokenizer(folder, "!" if name == "clip_h" else "<|endoftext|>"),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _plain(encoder: CLIPTextModelWithProjection, left_out: int = 0) -> CLIPTextModel:
    config = copy.deepcopy(encoder.config)
    config.num_hidden_layers -= left_out
    plain = CLIPTextModel(config)
    state = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    own = plain.state_dict()
    plain.load_state_dict({key: state[key.removeprefix("text_model.")] for key in own})
    return plain.eval().requires_grad_(False)


def _tokenizer(folder: Path, padding: str) -> CLIPTokenizer:
    """The published pieces and merges, which open_clip brings along, in the files that transformers reads."""
    source = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {names.get(piece, piece): number for piece, number in source.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = [" ".join(pair) for pair in sorted(source.bpe_ranks, key=source.bpe_ranks.__getitem__)]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, pad_token=padding, model_max_length=77)
