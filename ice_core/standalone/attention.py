"""The attention of a diffusers U-Net: made recordable, and its projections by their names in LoRA files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from ice_core.model.attention import AttentionRecorder, Kind, Size
from ice_core.model.lora import PROJECTIONS, kohya_name

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


class RecordableAttention:
    """Attention processor for one layer: memory-efficient, and beside it what a recorder asks for.

    `recorder` travels with the call (diffusers' `cross_attention_kwargs`), never in the model.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        recorder: AttentionRecorder | None = None,
        size: Size = (0, 0),
    ) -> Tensor:
        """hidden_states: [B, Q, C], Q = size[0] * size[1]; returns the same shape."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        if recorder is not None and recorder.wants(self.kind, size):
            recorder.record(self.kind, size, query, key, attn.scale)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        out = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return attn.to_out[1](out)


def adaptable_layers(unet: UNet2DConditionModel) -> dict[str, nn.Linear]:
    """The projections of every attention, by the names a LoRA has for them."""
    attentions = (name.removesuffix(".processor") for name in unet.attn_processors)
    paths = [f"{attention}.{projection}" for attention in attentions for projection in PROJECTIONS]
    return {kohya_name(path): cast(nn.Linear, unet.get_submodule(path)) for path in paths}


def make_recordable(unet: UNet2DConditionModel) -> None:
    """Install RecordableAttention everywhere; transformers tell their layers the activation's true size."""
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    kinds: dict[str, Kind] = {"attn1": "self", "attn2": "cross"}
    processors: dict[str, Any] = {
        name: RecordableAttention(kinds[name.split(".")[-2]]) for name in unet.attn_processors
    }
    unet.set_attn_processor(processors)

    def tell_size(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        passed = kwargs.get("cross_attention_kwargs")
        if not passed:
            return None
        height, width = (args[0] if args else kwargs["hidden_states"]).shape[-2:]
        return args, {**kwargs, "cross_attention_kwargs": {**passed, "size": (height, width)}}

    for module in unet.modules():
        if isinstance(module, Transformer2DModel):
            module.register_forward_pre_hook(tell_size, with_kwargs=True)
