"""A fake model that knows which words are true of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fakes import FakeBackbone
from torch import Tensor

from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt, TextFeatures
from ice_core.model.lora import Lora


class Knowing(FakeBackbone):
    """Denoises a picture [3, H, W] in a wave, and worse by `wrong` where a prompt says none of `right`.

    told: the prompts; passes: how many noisy copies it has seen.
    """

    def __init__(self, image: Tensor, *right: str, wrong: float = 0.5) -> None:
        super().__init__()
        self.latent, self.right, self.wrong = self.encode_image(image[None]), right, wrong
        self.told: list[str] = []
        self.passes = 0

    def encode_prompts(
        self, prompts: Sequence[Prompt], contexts: int | None = None, lora: Lora | None = None
    ) -> TextFeatures:
        self.told += [prompt.text for prompt in prompts]
        wrong = torch.tensor(
            [0.0 if any(word in prompt.text for word in self.right) else self.wrong for prompt in prompts]
        )
        pooled = super().encode_prompts(prompts).pooled
        return TextFeatures(wrong.view(-1, 1, 1), pooled, tuple(((0,),) for _ in prompts))

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None = None,
        lora: Lora | None = None,
    ) -> Tensor:
        self.passes += len(noisy)
        keep = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noise = (noisy - keep.sqrt() * self.latent) / (1 - keep).sqrt()
        rough = 0.3 * torch.sin(
            torch.arange(noise[0].numel()).view(noise[0].shape) + timesteps.view(-1, 1, 1, 1)
        )
        return noise + rough + text.context.view(-1, 1, 1, 1)
