"""What both Backbones are asked, and their answers as flat tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ice_core.concepts import Concept, ConceptSet, mean_row, said
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Backbone, Prompt, Token
from ice_core.model.lora import Lora
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.training.config import AnchoredConfig, TrainingConfig
from ice_core.training.events import Finished
from ice_core.training.trainer import train


def ask(backbone: Backbone, questions: dict[str, Tensor]) -> dict[str, Tensor]:
    """questions: picture [3, H, W], mask [H, W] bool, noise [2, C, h, w]; steps: how many the paper's method
    makes, by default 6, and the usual one 8, with an off-axis anchor."""
    steps = questions.get("steps")
    answers: dict[str, Tensor] = {"alphas": backbone.alphas_cumprod}
    answers["numbers"] = torch.tensor(
        [backbone.factor, backbone.channels, backbone.multiple, backbone.native_size]
    )
    answers["latent"] = backbone.encode_image(questions["picture"][None])
    answers["picture"] = backbone.decode_latent(answers["latent"])
    answers |= by_encoder("rows", backbone.word_rows("turquoise ball"))

    rows = {k: v.detach().clone().requires_grad_() for k, v in mean_row(backbone.word_rows("ball")).items()}
    token = Token("ball.object", rows)
    prompts = [Prompt(("a photo of a", token, "on sand")), Prompt(("a red (metal) cube",))]
    text = backbone.encode_prompts(prompts)
    answers["context"], answers["pooled"] = text.context, text.pooled
    answers["architecture"] = torch.tensor(list(backbone.architecture.encode()))
    answers["columns"] = torch.tensor([c for spans in text.columns for span in spans for c in span])

    times = torch.tensor([20, 700])
    recorder = AttentionRecorder()
    predicted = backbone.predict(questions["noise"], times, text, recorder)
    for kind in ("self", "cross"):
        answers |= {f"{kind}/{size}": map_ for size, map_ in recorder.recorded(kind).items()}
    answers["predicted"] = predicted
    answers["unrecorded"] = backbone.predict(questions["noise"], times, text)
    predicted.pow(2).mean().backward()
    answers |= by_encoder("gradient", {name: row.grad for name, row in rows.items()})

    answers |= with_and_without_padding(backbone)

    generator = torch.Generator().manual_seed(0)
    lora = Lora.initial(backbone.lora_targets, 2, generator)
    up = {k: torch.randn(v.shape, generator=generator) * 0.05 for k, v in sorted(lora.up.items())}
    answers["adapted"] = backbone.predict(
        questions["noise"], times, text, lora=Lora(lora.down, up, lora.alpha)
    )

    background = torch.zeros_like(questions["mask"])
    found = (Concept("ball", "ball", questions["mask"], 1.0),)
    concepts = ConceptSet(questions["picture"], found, background)
    config = TrainingConfig(steps=6 if steps is None else int(steps), alignment_iterations=20, method="paper")
    for event in train(backbone, concepts, config):
        if isinstance(event, Finished):
            for name, learned in event.learned.tokens.items():
                answers |= by_encoder(f"learned/{name}", learned.rows)
    usual = (
        (8, AnchoredConfig(batch=4, off_axis=1.0)) if steps is None else (int(steps), AnchoredConfig(batch=2))
    )
    answers |= _anchored(backbone, concepts, *usual)
    return {name: value.detach().float().cpu() for name, value in answers.items()}


def by_encoder(name: str, rows: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Rows as answers: `<name>/<encoder>`."""
    return {f"{name}/{encoder}": value for encoder, value in rows.items() if value is not None}


def _anchored(
    backbone: Backbone, concepts: ConceptSet, steps: int, settings: AnchoredConfig
) -> dict[str, Tensor]:
    """What the usual method learns from the same readings, and a picture drawn with it."""
    readings = {"ball": {"color": said("color", "red"), "material": said("material", "metal")}}
    config = TrainingConfig(("color", "material"), steps, anchored=settings)
    *_, last = train(backbone, concepts, config, readings)
    assert isinstance(last, Finished)
    answers: dict[str, Tensor] = {}
    for name, token in last.learned.tokens.items():
        answers |= by_encoder(f"learned by words/{name}", token.rows)
    tokens = last.learned.concepts[0].intrinsics
    prompt = Prompt(("a photo of a", tokens["color"], tokens["material"], "cube"))
    drawing = SamplingConfig(4)
    return answers | {"drawn": sample(backbone, [prompt], drawing, torch.Generator().manual_seed(0))}


def with_and_without_padding(backbone: Backbone) -> dict[str, Tensor]:
    """What prompts of different lengths give with all contexts (`padding/all`) and with fewer
    (`padding/<n>`): pooled features, their gradient by a token of two rows, the first context."""
    answers = {}
    for contexts in (None, 2, 1, 0):
        starts = [backbone.word_rows(word) for word in ("ball", "red")]
        rows = {
            name: torch.cat([start[name][:1] for start in starts]).detach().clone().requires_grad_()
            for name in backbone.encoders
        }
        token = Token("ball.object", rows)
        prompts = [
            Prompt(("a photo of a", token, "on sand")),
            Prompt((token,)),
            Prompt(("a red metal cube beside " * 14, token, token)),
            Prompt(("sand",)),
            Prompt((token, "and a", token)),
        ]
        text = backbone.encode_prompts(prompts, contexts)
        weights = torch.randn(text.pooled.shape, generator=torch.Generator().manual_seed(0))
        (text.pooled * weights.to(text.pooled.device)).sum().backward()
        key = f"padding/{'all' if contexts is None else contexts}"
        gradients = [torch.zeros(2, 0) if row.grad is None else row.grad for row in rows.values()]
        answers |= {f"{key}/pooled": text.pooled, f"{key}/gradient": torch.cat(gradients, -1)}
        if contexts != 0:
            answers[f"{key}/context"] = text.context[0]
        answers[f"{key}/contexts"] = torch.tensor(len(text.context))
    return answers
