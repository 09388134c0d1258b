"""The bundled model as the host's own MODEL, CLIP and VAE."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import comfy.model_management as management
import comfy.model_patcher
import comfy.sd
import folder_paths
from comfy import latent_formats, model_base, model_detection, supported_models
from safetensors import safe_open

from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.standalone.ldm import UNET_PREFIX, VAE_PREFIX
from ice_core.world.architecture import CLIP_CONFIG, LATENT_CHANNELS, METADATA
from ice_core.world.bundled import MODEL_FILE, load_bundled_towers, require_weights

_TEXT = CLIP_CONFIG["text_cfg"]
_TEXT_CONFIG = {
    "hidden_size": _TEXT["width"],
    "intermediate_size": 4 * _TEXT["width"],
    "num_attention_heads": _TEXT["heads"],
    "num_hidden_layers": _TEXT["layers"],
}


class DemoLatents(latent_formats.SD15):
    """Stable Diffusion 1's scale on more channels, which its own preview colors do not fit."""

    latent_channels = LATENT_CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.latent_rgb_factors = None
        self.taesd_decoder_name = None


class DemoWorld(supported_models.SD15):
    """Stable Diffusion 1 in small. What begins with `ice_` is read by nodes/host/backbone.py."""

    unet_extra_config = {  # noqa: RUF012
        "num_heads": int(METADATA["ice.unet_heads"]),
        "num_head_channels": -1,
    }
    latent_format = DemoLatents  # type: ignore[assignment]
    ice_name = "ICE demo model"
    ice_native_size = int(METADATA["ice.native_size"])

    def inpaint_model(self) -> bool:
        """No: a host takes more than four channels for an inpainting model."""
        return False

    def model_type(self, state_dict: Any, prefix: str = "") -> Any:
        predicts_v = METADATA["ice.prediction"] == "v_prediction"
        return model_base.ModelType.V_PREDICTION if predicts_v else model_base.ModelType.EPS


@lru_cache(maxsize=1)
def bundled_towers() -> ImageTextModel:
    """The demo world's CLIP, opened once."""
    return load_bundled_towers()


def is_demo_model(model: Any) -> bool:
    """Whether a MODEL came from here, LoRAs and all."""
    return isinstance(model.model.model_config, DemoWorld)


def load_demo_model() -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of the bundled checkpoint, built of the host's classes."""
    with safe_open(require_weights(MODEL_FILE), framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    config = DemoWorld(model_detection.detect_unet_config(state, UNET_PREFIX))
    device = management.get_torch_device()
    unet = {k: v for k, v in state.items() if k.startswith(UNET_PREFIX)}
    size = sum(v.numel() for v in unet.values())
    dtypes = config.supported_inference_dtypes
    dtype = management.unet_dtype(device, model_params=size, supported_dtypes=dtypes)
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, dtypes))
    inner = config.get_model(unet, UNET_PREFIX, device=management.unet_inital_load_device(size, dtype))
    patcher = comfy.model_patcher.ModelPatcher(
        inner, load_device=device, offload_device=management.unet_offload_device()
    )
    inner.load_model_weights(unet, UNET_PREFIX)
    vae = comfy.sd.VAE({k.removeprefix(VAE_PREFIX): v for k, v in state.items() if k.startswith(VAE_PREFIX)})
    text = config.process_clip_state_dict(
        {k: v for k, v in state.items() if k.startswith("cond_stage_model.")}
    )
    clip = comfy.sd.CLIP(
        config.clip_target(state_dict=text),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        tokenizer_data=text,
        parameters=sum(v.numel() for v in text.values()),
        model_options={"clip_l_model_config": _TEXT_CONFIG},
    )
    clip.load_sd(text, full_model=True)
    return patcher, clip, vae
