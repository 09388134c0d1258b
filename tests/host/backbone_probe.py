"""Runs inside a host's Python: ComfyUI's Backbone on the bundled model, its answers into a file.

python backbone_probe.py HOST PACK QUESTIONS ANSWERS [--offloaded] [--recomputed] [the host's own options]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from inside_host import enter, pack_module

host, pack, questions, answers, *options = sys.argv[1:]
ours = ("--offloaded", "--recomputed")
offloaded, recomputed = (option in options for option in ours)
enter(host, pack, [option for option in options if option not in ours])

import comfy.model_management  # noqa: E402
import torch  # noqa: E402
from backbone_questions import ask, with_and_without_padding  # noqa: E402

from ice_core.model.attention import AttentionRecorder  # noqa: E402
from ice_core.model.backbone import Prompt, Token  # noqa: E402

ComfyBackbone = pack_module("nodes.host.backbone").ComfyBackbone
gradients = pack_module("nodes.host.weights").gradients


def weights(wires: tuple) -> dict[str, torch.Tensor]:
    """Copies of all weights, as bytes: not every kind of number can be compared."""
    model, clip, vae = wires
    parts = {"unet": model.model, "text": clip.cond_stage_model, "vae": vae.first_stage_model}
    return {
        f"{k}/{n}": w.reshape(-1).view(torch.uint8).clone()
        for k, part in parts.items()
        for n, w in part.state_dict().items()
    }


def offload(wires: tuple) -> int:
    """Load as on a card that is too small, where weights are moved at use; the number of such layers.

    On the CPU the host would load everything again: it is kept from doing so.
    """
    patchers = (wires[0], wires[1].patcher)
    for patcher in patchers:
        patcher.load(torch.device("cpu"), lowvram_model_memory=1)
    comfy.model_management.load_models_gpu = lambda *args, **kwargs: None
    return sum(hasattr(m, "prev_comfy_cast_weights") for p in patchers for m in p.model.modules())


def calls_of_an_override(wires: tuple, question: dict) -> list[int]:
    """How often an attention override on the wire is called in a pass, and in one that records."""
    model, calls = wires[0].clone(), []

    def override(attention, *tensors, **settings):
        calls.append(1)
        return attention(*tensors, **settings)

    model.model_options["transformer_options"]["optimized_attention_override"] = override
    backbone, counted = ComfyBackbone(model, *wires[1:]), []
    text = backbone.encode_prompts([Prompt(("a ball",))])
    for recorder in (None, AttentionRecorder()):
        calls.clear()
        backbone.predict(question["noise"], torch.tensor([20, 700]), text, recorder)
        counted.append(len(calls))
    return counted


def passes_of_a_block(backbone: ComfyBackbone, wires: tuple, question: dict) -> int:
    """How often a part of a transformer block works in a pass and its gradients."""
    name, part = next((n, m) for n, m in wires[0].model.named_modules() if n.endswith("blocks.0.norm1"))
    assert name
    calls: list[int] = []
    hook = part.register_forward_pre_hook(lambda *_: calls.append(1))
    rows = {k: v.clone().requires_grad_() for k, v in backbone.word_rows("ball").items()}
    text = backbone.encode_prompts([Prompt((Token("t", rows),))])
    backbone.predict(question["noise"], torch.tensor([20, 700]), text).square().mean().backward()
    hook.remove()
    return len(calls)


with torch.inference_mode():  # as the executor calls a node
    wires = pack_module("nodes.demo_model").load_demo_model()
    before = weights(wires)
    layers = offload(wires) if offloaded else 0
    backbone = ComfyBackbone(*wires)
    if recomputed:
        backbone.checkpoint_gradients()
    with gradients():
        asked = torch.load(questions, weights_only=True)
        result = ask(backbone, asked)
        passes = passes_of_a_block(backbone, wires, asked)
        room = [backbone.has_room_for(copies, 128, 128) for copies in (0, 8, 10**7)]
        overridden = calls_of_an_override(wires, asked)
        earlier = wires[1].clone()
        earlier.clip_layer(-2)
        of_earlier = with_and_without_padding(ComfyBackbone(wires[0], earlier, wires[2]))
    after = weights(wires)
result |= {f"earlier layer/{name}": value.detach().float().cpu() for name, value in of_earlier.items()}
result["unchanged"] = torch.tensor(
    before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
)
result["hooks"] = torch.tensor(
    sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks)
        for part in (wires[0].model, wires[1].cond_stage_model)
        for m in part.modules()
    )
)
result["room"] = torch.tensor(room)
result["passes"] = torch.tensor(passes)
result["overridden"] = torch.tensor(overridden)
result["offloaded"] = torch.tensor(layers)
torch.save(result, answers)
