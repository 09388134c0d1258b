"""Models that embed pictures and texts in one space."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.concepts import unit
from ice_core.errors import IceError

if TYPE_CHECKING:
    import open_clip

TEXTS_AT_ONCE = 256
REMEDY = "pass a local file as NAME=FILE.safetensors, or name the objects yourself"


class ImageTextModel(Protocol):
    """What retrieval needs of CLIP and its kin."""

    @property
    def name(self) -> str:
        """For people: a model's name or title."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal hash of the weights, for caches."""

    @property
    def scale(self) -> float:
        """What its training multiplied cosines by before the softmax: 100 for OpenAI's CLIP."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in 0..1, of any size -> unit embeddings [B, D], float32, CPU."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts, as they are -> unit embeddings [B, D], float32, CPU."""


class OpenClipTowers:
    """An open_clip CLIP model. mean, std: per colour channel, of the pictures it was trained on."""

    def __init__(
        self,
        model: open_clip.CLIP,
        name: str,
        fingerprint: str,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
    ) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self.name, self.fingerprint = name, fingerprint
        self.device = torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.dtype = next(model.parameters()).dtype
        self.scale = model.logit_scale.exp().item()
        self.mean = torch.tensor(mean, device=self.device).view(3, 1, 1)
        self.std = torch.tensor(std, device=self.device).view(3, 1, 1)
        size = model.visual.image_size
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self.tokenize = SimpleTokenizer(context_length=model.context_length)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in 0..1 -> unit embeddings [B, D], float32, CPU.

        The whole picture is squeezed into the model's square input: the usual centre crop would hide
        objects near the border from Stage One.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise IceError(f"pictures of shape {tuple(images.shape)}; [batch, 3, height, width] is needed")
        x = images.to(self.device, torch.float32)
        if tuple(x.shape[-2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        x = (x - self.mean) / self.std
        return unit(self.model.encode_image(x.to(self.dtype))).cpu()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts, as they are -> unit embeddings [B, D], float32, CPU."""
        parts = [
            unit(self.model.encode_text(self.tokenize(list(texts[i : i + TEXTS_AT_ONCE])).to(self.device)))
            for i in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        return torch.cat(parts).cpu()


def load_open_clip(
    name_or_file: str, pretrained: str | None = None, device: torch.device | str = "cpu"
) -> OpenClipTowers:
    """Open a CLIP model by open_clip's name and tag, or from a file.

    name_or_file: "ViT-L-14" with pretrained="laion2b_s32b_b82k" (downloaded on first use), or
    "ViT-L-14=path/to/file.safetensors" (the same as pretrained="path/to/file.safetensors"). Weights of
    OpenAI's own CLIP need the "-quickgelu" variant of a name. Raises IceError for an unknown name or tag,
    a file that is missing or does not fit, and when a download fails.
    """
    import open_clip

    name, _, file = name_or_file.partition("=")
    if not file and pretrained and pretrained.endswith(".safetensors"):
        file = pretrained
    if name.endswith(".safetensors"):
        raise IceError(f"{name!r} does not say which model it is; write for example ViT-L-14={name}")
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        near = ", ".join(_near(name, open_clip.list_models())) or "ViT-B-32, ViT-L-14"
        raise IceError(f"open_clip knows no model {name!r}; near names: {near}")
    if config.get("custom_text") or "hf_tokenizer_name" in config["text_cfg"]:
        raise IceError(f"{name} is not a plain CLIP with CLIP's own tokenizer; use for example ViT-L-14")
    if file:
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        model = _from_file(config, name, Path(file).expanduser())
    else:
        model = _downloaded(name, pretrained)
        preprocessing = open_clip.get_model_preprocess_cfg(model)
        mean, std = preprocessing["mean"], preprocessing["std"]
    return OpenClipTowers(model, name, weights_fingerprint(model.state_dict()), mean, std, device)


def open_towers(text: str, device: torch.device | str = "cpu") -> OpenClipTowers:
    """Open the CLIP that a text names: NAME/WEIGHTS of open_clip, or NAME=FILE; see `load_open_clip`."""
    name, _, weights = (text, "", "") if "=" in text else text.rpartition("/")
    return load_open_clip(name or text, weights or None, device)


def download_size(text: str) -> int:
    """Bytes that `open_towers` would fetch for NAME/WEIGHTS, as float32; 0 where they are on this disk, or
    where it will fetch none: a file, and names that do not exist."""
    import open_clip
    from huggingface_hub import try_to_load_from_cache

    name, _, weights = text.rpartition("/")
    if "=" in text or weights not in open_clip.list_pretrained_tags_by_model(name):
        return 0
    repository, _, file = open_clip.get_pretrained_cfg(name, weights).get("hf_hub", "").rpartition("/")
    files = (file,) if file else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    if repository and any(isinstance(try_to_load_from_cache(repository, one), str) for one in files):
        return 0
    return _size(name)


def _size(name: str) -> int:
    """Bytes of a model's weights in float32; 0 where open_clip builds it of other parts."""
    import open_clip

    config = open_clip.get_model_config(name) or {}
    with torch.device("meta"):
        try:
            model = open_clip.CLIP(**config)
        except (TypeError, RuntimeError, ImportError):
            return 0
    return sum(4 * parameter.numel() for parameter in model.parameters())


def _near(name: str, models: Sequence[str]) -> list[str]:
    """Up to four models that a name may mean: those that begin with it, capital letters aside, and alike."""
    by_folded = {model.casefold(): model for model in models}
    begin = sorted((one for one in by_folded if one.startswith(name.casefold())), key=len)
    alike = get_close_matches(name.casefold(), by_folded, 4, 0.3)
    return [by_folded[one] for one in dict.fromkeys((*begin, *alike))][:4] if name else []


def _from_file(config: dict[str, Any], name: str, path: Path) -> open_clip.CLIP:
    import open_clip
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        raise IceError(f"{path} is not a .safetensors file; other formats can run code and are not read")
    if not os.path.isfile(path):
        raise IceError(f"there is no file {path}; give the path of an open_clip model in safetensors")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise IceError(f"{path} cannot be read as safetensors ({error}); download it again") from error
    model = open_clip.CLIP(**config)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise IceError(f"{path} does not hold an open_clip {name}: {reason}") from error
    return model


def _downloaded(name: str, pretrained: str | None) -> open_clip.CLIP:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags:
        raise IceError(
            f"{name} has no weights {pretrained!r}; there are: {', '.join(tags) or 'none'}; or {REMEDY}"
        )
    try:
        return open_clip.create_model(name, pretrained=pretrained)
    except (RuntimeError, OSError) as error:
        raise IceError(
            f"the weights {name}/{pretrained} ({_size(name) / 1e9:.1f} GB) are not on this disk and cannot "
            f"be downloaded: {REMEDY}"
        ) from error


def weights_fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of a state dict."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
