"""Runs inside a host's Python: small CLIP models of the host's own classes, joined into towers.

python connected_clip_probe.py HOST PACK -> one line of JSON
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

host, pack = sys.argv[1:]
sys.path.insert(0, host)
os.chdir(host)
sys.argv = [sys.argv[0], "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.clip_vision  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from comfy import sd1_clip  # noqa: E402
from comfy.supported_models_base import ClipTarget  # noqa: E402
from comfy.text_encoders import sd2_clip  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "ice_pack", Path(pack) / "__init__.py", submodule_search_locations=[pack]
)
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
sys.modules["ice_pack"] = module
spec.loader.exec_module(module)

from ice_pack.nodes.host.clip_vision import ConnectedTowers  # type: ignore[import-not-found] # noqa: E402

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}


def filled(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).mul(0.1).to(parameter.dtype)


def text(tokenizer: Any, model: Any, name: str) -> Any:
    clip = comfy.sd.CLIP(
        ClipTarget(tokenizer, model), model_options={f"{name}_model_config": SMALL, "dtype": torch.float32}
    )
    filled(clip.cond_stage_model)
    return clip


def vision(width: int) -> Any:
    config = {"hidden_act": "gelu", "image_size": 28, "patch_size": 14, "num_channels": 3}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({**SMALL, **config, "projection_dim": width, "model_type": "clip_vision_model"}, file)
        file.flush()
        made = comfy.clip_vision.ClipVisionModel(file.name)
    filled(made.model)
    return made


def complaint(*wires: Any) -> str:
    try:
        ConnectedTowers(*wires, "use the source 'open_clip model'")
    except ValueError as error:
        return str(error)
    return ""


with torch.inference_mode():  # as the executor calls a node
    sd2 = text(sd2_clip.SD2Tokenizer, sd2_clip.SD2ClipModel, "clip_h")
    sd1 = text(sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel, "clip_l")
    towers = ConnectedTowers(vision(64), sd2, "")
    words = ["ball", "wine glass", "cube (large)"]
    together = towers.encode_texts(words)
    apart = torch.cat([towers.encode_texts([word]) for word in words])
    _, pooled = sd2.encode_from_tokens(sd2.tokenize("wine glass"), return_pooled=True)
    pictures = torch.rand(2, 3, 40, 70)
    images = towers.encode_images(pictures)
    narrow = pictures.clone()
    narrow[..., :10] = 0  # a centre crop would not see this
    answers = {
        "shapes": [list(together.shape), list(images.shape)],
        "norms": torch.cat([together, images]).norm(dim=-1).tolist(),
        "batching": (together - apart).abs().max().item(),
        "host": (together[1] - pooled[0] / pooled[0].norm()).abs().max().item(),
        "border": (towers.encode_images(narrow) - images).abs().max().item(),
        "fingerprint": towers.fingerprint,
        "sd1": complaint(vision(64), sd1),
        "mismatch": complaint(vision(48), sd2),
    }
print(json.dumps(answers))
