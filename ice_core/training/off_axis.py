"""The off-axis anchor: a property's token changes other things as its word does (ours).

A picture tells nothing of what its red is like on another thing, so nothing there keeps a token from
learning more than its own property. The model itself is asked: on pictures that it drew of "a photo of a
{red} {other thing}" its prediction with the token must stay near the one with the word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_core.model.backbone import Backbone, Token
from ice_core.model.noising import fill, noisy_and_target
from ice_core.model.sampling import SamplingConfig, sample_latents

_DRAWING_STEPS = 8
_DRAWING_SEED = 2
"""Added to the training's seed."""
_TEMPLATE = "a photo of a {}"


@dataclass(frozen=True)
class Foreign:
    """A picture of an object's property on another thing, as the model draws it from words. key: of the
    object; name: of the property's token; latents: [C, h, w]."""

    key: str
    name: str
    word: str
    thing: str
    latents: Tensor


def draw_foreign(
    backbone: Backbone,
    words: Mapping[str, Mapping[str, str]],
    labels: Mapping[str, str],
    count: int,
    seed: int,
) -> tuple[Foreign, ...]:
    """`count` pictures per property, on the picture's other things in turn, else on its own.

    words: by object key, then by the name of a property's token; labels: by object key.
    """
    wanted = []
    for key, of in words.items():
        others = list(dict.fromkeys(label for label in labels.values() if label != labels[key]))
        things = others or [labels[key]]
        wanted += [
            (key, name, word, things[n % len(things)]) for name, word in of.items() for n in range(count)
        ]
    if not wanted:
        return ()
    prompts = [fill(_TEMPLATE, [word, thing]) for _, _, word, thing in wanted]
    generator = torch.Generator().manual_seed(seed + _DRAWING_SEED)
    latents = sample_latents(backbone, prompts, SamplingConfig(_DRAWING_STEPS, eta=0), generator)
    return tuple(Foreign(*one, x) for one, x in zip(wanted, latents.to(backbone.device), strict=True))


def off_axis_loss(
    backbone: Backbone,
    foreign: Sequence[Foreign],
    tokens: Mapping[str, Token],
    timesteps: Tensor,
    noise: Tensor,
    alphas: Tensor,
) -> Tensor:
    """Mean squared difference between what is predicted with each token and with its word.

    tokens: by name; timesteps: [F]; noise: [F, C, h, w]; alphas: of the whole schedule.
    """
    original = torch.stack([one.latents for one in foreign])
    noisy, _ = noisy_and_target(original, noise, alphas[timesteps], backbone.prediction)
    by_token = [fill(_TEMPLATE, [tokens[one.name], one.thing]) for one in foreign]
    by_word = [fill(_TEMPLATE, [one.word, one.thing]) for one in foreign]
    with torch.no_grad():
        wanted = backbone.predict(noisy, timesteps, backbone.encode_prompts(by_word)).float()
    found = backbone.predict(noisy, timesteps, backbone.encode_prompts(by_token)).float()
    return (found - wanted).square().mean()
