"""Checkpoints that were damaged, or made to be refused slowly."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoint import tiny

from ice_core.errors import IceError
from ice_core.standalone.checkpoint import load_checkpoint
from ice_core.standalone.stable_diffusion_1 import infer
from ice_core.standalone.weight_file import open_weights


def test_layers_without_weights_are_not_counted(tmp_path: Path) -> None:
    names = [f"model.diffusion_model.input_blocks.{i}.0.in_layers.2.weight" for i in range(5_000)]
    header = {name: {"dtype": "F32", "shape": [8, 0], "data_offsets": [0, 0]} for name in names}
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert not open_weights(tmp_path / "a.safetensors").tensors
    with pytest.raises(IceError, match=r"a\.safetensors"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_more_layers_than_any_model_has_are_refused(tmp_path: Path) -> None:
    state = dict(tiny(like_sd1=True).state)
    block = "model.diffusion_model.input_blocks.{}.0.in_layers.2.weight"
    state |= {block.format(i): torch.zeros(32) for i in range(100, 200)}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(IceError, match=r"names 1\d\d blocks or layers where a model has 32 at most"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_more_transformers_than_any_model_has_are_refused() -> None:
    shapes = {name: tuple(value.shape) for name, value in tiny(like_sd1=True).state.items()}
    block = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.{}.norm1.weight"
    shapes |= {block.format(i, depth): (32,) for i in (2, 5) for depth in range(32)}
    with pytest.raises(IceError, match="names 128 transformers"):
        infer(shapes, {})


@pytest.mark.parametrize(
    "content",
    [{"state_dict": 3}, {"state_dict": [torch.zeros(2)]}, {"state_dict": None}, [1, 2], 7, "text", {}],
)
def test_a_pickle_that_holds_no_weights_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(IceError, match=r"a\.ckpt"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("place", range(0, 2600, 130))
def test_a_damaged_pickle_is_refused_or_read(tmp_path: Path, place: int) -> None:
    torch.save({"state_dict": {str(i): torch.zeros(4, 4) for i in range(8)}}, tmp_path / "a.ckpt")
    data = bytearray((tmp_path / "a.ckpt").read_bytes())
    data[place : place + 3] = b"\xff\x80\x00"
    (tmp_path / "a.ckpt").write_bytes(data)
    with pytest.raises(IceError, match=r"a\.ckpt"):
        load_checkpoint(tmp_path / "a.ckpt")


SCALAR, FLAT = torch.zeros(()), torch.zeros(6)
ODD = {
    "model.diffusion_model.input_blocks.0.0.weight": SCALAR,
    "model.diffusion_model.out.2.weight": SCALAR,
    "model.diffusion_model.input_blocks.1.0.in_layers.2.weight": SCALAR,
    "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": FLAT,
    "model.diffusion_model.middle_block.1.proj_in.weight": SCALAR,
    "first_stage_model.encoder.conv_in.weight": FLAT,
    "first_stage_model.decoder.conv_in.weight": torch.zeros(3, 0),
    "first_stage_model.encoder.down.0.block.0.conv2.weight": SCALAR,
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": FLAT,
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": SCALAR,
    "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight": SCALAR,
}


@pytest.mark.parametrize("name", ODD)
def test_weights_of_odd_shapes_are_refused(tmp_path: Path, name: str) -> None:
    state = dict(tiny(like_sd1=True).state)
    assert name in state
    save_file(state | {name: ODD[name]}, tmp_path / "a.safetensors")
    with pytest.raises(IceError):
        load_checkpoint(tmp_path / "a.safetensors")
