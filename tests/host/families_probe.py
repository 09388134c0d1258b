"""Runs inside a host's Python: small models of every family, loaded by the host itself from their files.

python families_probe.py HOST PACK FOLDER, where FOLDER holds `<family>.safetensors`, `questions.pt`, and of
each family a folder `<family>` with `token.pt`, `embeddings/ball.safetensors` and `lora.safetensors`. Answers
to the questions go into `answers-<family>.pt` there, and what the host's own readers make of the files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from inside_host import enter, pack_module

host, pack, folder = sys.argv[1:]
# The host merges a LoRA into its text encoders' weights, which it keeps in 16 bits otherwise.
enter(host, pack, ["--fp32-text-enc"])

import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from backbone_questions import ask  # noqa: E402
from comfy import model_detection, supported_models  # noqa: E402

from ice_core.files.lora import load_lora  # noqa: E402
from ice_core.model.backbone import Prompt, Token  # noqa: E402

ComfyBackbone = pack_module("nodes.host.backbone").ComfyBackbone
encode_conditioning = pack_module("nodes.host.conditioning").encode_conditioning
gradients = pack_module("nodes.host.weights").gradients

CLASSES = {"sd1": supported_models.SD15, "sd2": supported_models.SD20, "sdxl": supported_models.SDXL}
WIDTHS = {"clip_l": 64, "clip_h": 64, "clip_g": 128}


def load(path: Path) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE as Load Checkpoint makes them; the host is told that models are this small."""
    base = CLASSES[path.stem.partition("-")[0]]
    found = model_detection.detect_unet_config(
        comfy.utils.load_torch_file(str(path)), "model.diffusion_model."
    )
    small = type(
        "Small",
        (base,),
        {"unet_config": {key: found.get(key) for key in base.unet_config}, "ice_native_size": 64},
    )
    options = {
        f"{name}_model_config": {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_attention_heads": width // 64,
            "num_hidden_layers": 3,
        }
        for name, width in WIDTHS.items()
    }
    supported_models.models.insert(0, small)
    try:
        return comfy.sd.load_checkpoint_guess_config(
            str(path),
            embedding_directory=str(path.parent / path.stem / "embeddings"),
            te_model_options=options,
        )[:3]
    finally:
        supported_models.models.remove(small)


def read(wires: tuple[Any, Any, Any], files: Path, noise: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the host makes of the files (`host/...`), and of the values that they hold (`ours/...`)."""
    model, clip, vae = wires
    token = Token("ball", torch.load(files / "token.pt", weights_only=True))
    theirs = clip.encode_from_tokens_scheduled(clip.tokenize("a photo of embedding:ball on sand"))
    ours = encode_conditioning(clip, Prompt(("a photo of", token, "on sand")))
    answers = {}
    for name, ((context, more),) in (("host", theirs), ("ours", ours)):
        answers |= {f"{name}/context": context, f"{name}/pooled": more["pooled_output"]}
    state, times = comfy.utils.load_torch_file(str(files / "lora.safetensors")), torch.tensor([20, 700])
    adapted, heard = comfy.sd.load_lora_for_models(model, clip, state, 1.0, 1.0)
    backbone = ComfyBackbone(model, clip, vae)
    text = backbone.encode_prompts([Prompt(("a ball",))])
    ((context, more),) = heard.encode_from_tokens_scheduled(heard.tokenize("a ball"))
    answers |= {"host/adapted context": context, "host/adapted pooled": more["pooled_output"]}
    said = backbone.encode_prompts([Prompt(("a ball",))], lora=load_lora(files / "lora.safetensors"))
    answers |= {"ours/adapted context": said.context, "ours/adapted pooled": said.pooled}
    answers["host/plain context"] = text.context
    answers["ours/adapted"] = backbone.predict(noise, times, text, lora=load_lora(files / "lora.safetensors"))
    answers["host/plain"] = backbone.predict(noise, times, text)
    answers["host/adapted"] = ComfyBackbone(adapted, clip, vae).predict(noise, times, text)
    return answers


torch.set_num_threads(1)  # as the answers that these are compared with
with torch.inference_mode():  # as the executor calls a node
    questions = torch.load(Path(folder) / "questions.pt", weights_only=True)
    for path in sorted(Path(folder).glob("*.safetensors")):
        wires = load(path)
        with gradients():
            answers = ask(ComfyBackbone(*wires), questions)
        answers |= read(wires, path.with_suffix(""), questions["noise"])
        torch.save(
            {key: value.detach().float().cpu() for key, value in answers.items()},
            path.with_name(f"answers-{path.stem}.pt"),
        )
