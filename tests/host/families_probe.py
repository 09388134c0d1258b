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
from tiny_host_models import load  # noqa: E402

from ice_core.files.lora import load_lora  # noqa: E402
from ice_core.model.backbone import Prompt, Token  # noqa: E402

ComfyBackbone = pack_module("nodes.host.backbone").ComfyBackbone
encode_conditioning = pack_module("nodes.host.conditioning").encode_conditioning
gradients = pack_module("nodes.host.weights").gradients


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
        wires = load(path, path.with_suffix("") / "embeddings")
        with gradients():
            answers = ask(ComfyBackbone(*wires), questions)
        answers |= read(wires, path.with_suffix(""), questions["noise"])
        torch.save(
            {key: value.detach().float().cpu() for key, value in answers.items()},
            path.with_name(f"answers-{path.stem}.pt"),
        )
