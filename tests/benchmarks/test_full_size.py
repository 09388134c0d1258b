"""What is said of cards is computed on the models' true shapes, and every family's steps can be measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from full_size import WORKS, measure
from full_size_models import SHAPES, random_model
from memory_budget import META, step

PARAMETERS = {
    "sd15": (859_520_964, 123_060_480),
    "sd21": (865_910_724, 352_984_064),
    "sdxl": (2_567_463_684, 816_081_920),
}
"""Of U-Net and text encoders, these without projections."""


@pytest.mark.parametrize("family", SHAPES)
def test_random_models_have_the_published_sizes(family: str) -> None:
    backbone = random_model(family, META, torch.bfloat16)
    assert sum(p.numel() for p in backbone.unet.parameters()) == PARAMETERS[family][0]
    texts: Any = getattr(backbone.text, "encoders", (backbone.text,))
    assert sum(p.numel() for text in texts for p in text.module.parameters()) == PARAMETERS[family][1]


def test_computing_again_keeps_a_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch)
    backbone = random_model("sdxl", META, torch.bfloat16)
    plain = step(backbone, 1)
    backbone.checkpoint_gradients()
    again = step(backbone, 1)
    assert again["text"] == plain["text"]
    assert again["unet"] < plain["unet"] / 4
    assert 0 < plain["block"] < plain["unet"]
    assert step(backbone, 2)["unet"] == 2 * again["unet"]


def test_both_memory_options_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch)
    found = {w: measure(w, random_model("sdxl", torch.device("cpu"), torch.float32), 64, 4) for w in WORKS}
    assert found["objects"]["seconds"] > 0
    for option in ("plain", "checkpointing"):
        assert found[option]["step_over_bare"] > 0


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SDXL of few channels: its shape is all there."""
    shape = SHAPES["sdxl"]
    unet = shape.unet | {
        "block_out_channels": (64, 64, 64),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (1, 1, 1),
        "cross_attention_dim": 128,
        "projection_class_embeddings_input_dim": 64 + 1536,
    }
    texts = {"clip_l": (64, 3), "clip_g": (64, 3)}
    small = type(shape)(shape.architecture, unet, texts, shape.side, shape.latent_scale)
    monkeypatch.setitem(SHAPES, "sdxl", small)
