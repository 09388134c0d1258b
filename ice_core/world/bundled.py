"""The bundled model: a checkpoint in Stable Diffusion 1's own layout, and the CLIP that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ice_core.attributes.values import Axis
from ice_core.errors import IceError
from ice_core.tensor_files.digest import file_sha256
from ice_core.world.architecture import CLIP_CONFIG
from ice_core.world.colors import FINE_NAMES
from ice_core.world.scenes import AXES, EXTREMES, GROUNDS, INTRINSIC_AXES

if TYPE_CHECKING:
    from ice_core.localization.retrieval.dictionary import Vocabulary
    from ice_core.localization.retrieval.retriever import Retriever
    from ice_core.localization.retrieval.towers import OpenClipTowers
    from ice_core.model.backbone import Backbone
    from ice_core.standalone.backbone import StandaloneBackbone

WEIGHTS = Path(__file__).parent / "weights"
MODEL_FILE = WEIGHTS / "model.safetensors"
CLIP_FILE = WEIGHTS / "clip.safetensors"


def load_bundled_backbone(device: str = "cpu") -> StandaloneBackbone:
    """The small model of the rendered world, on diffusers."""
    from ice_core.standalone.checkpoint import load_checkpoint

    return load_checkpoint(require_weights(MODEL_FILE), device)


def load_bundled_towers(backbone: StandaloneBackbone | None = None, device: str = "cpu") -> OpenClipTowers:
    """Its CLIP: the image tower from its own file, the text tower shared with the checkpoint, which is
    read from there when no backbone is given (hosts have no need of the standalone one)."""
    import open_clip

    from ice_core.localization.retrieval.towers import OpenClipTowers
    from ice_core.standalone.ldm import text_state_to_open_clip

    text = _text_state(require_weights(MODEL_FILE)) if backbone is None else backbone.text.state()
    state = load_file(require_weights(CLIP_FILE)) | text_state_to_open_clip(text)
    model = open_clip.CLIP(**CLIP_CONFIG)
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return OpenClipTowers(
        model.eval().requires_grad_(False),
        name="bundled",
        fingerprint=_fingerprint() if backbone is None else backbone.fingerprint,
        mean=open_clip.OPENAI_DATASET_MEAN,
        std=open_clip.OPENAI_DATASET_STD,
        device=device,
    )


def _text_state(checkpoint: Path) -> dict[str, Tensor]:
    """The text tower's weights in a checkpoint, keys relative to `text_model.`."""
    from ice_core.standalone.ldm import TEXT_PREFIX

    with safe_open(checkpoint, "pt") as file:
        names = [name for name in file.keys() if name.startswith(TEXT_PREFIX)]  # noqa: SIM118
        return {name.removeprefix(TEXT_PREFIX): file.get_tensor(name) for name in names}


@cache
def _fingerprint() -> str:
    return file_sha256(MODEL_FILE)


def is_bundled(backbone: Backbone) -> bool:
    """Whether a model has the bundled checkpoint's weights, whoever hosts it."""
    return MODEL_FILE.is_file() and backbone.fingerprint == _fingerprint()


def world_vocabulary() -> Vocabulary:
    """Every word the bundled CLIP was taught; only kinds can name an object."""
    from ice_core.localization.retrieval.dictionary import Vocabulary

    words = [value for values in AXES.values() for value in values] + list(GROUNDS)
    return Vocabulary(tuple(words), tuple(word in AXES["kind"] for word in words))


def world_axes() -> Mapping[str, Axis]:
    """The axes an object of the world has, with the words the bundled CLIP was taught for them.

    For `parse_axes`, in place of the dictionaries of the whole language.
    """
    every = AXES | {"color": (*AXES["color"], *FINE_NAMES)}
    # A picture tells too little of a material's finish, and what is made of glass or wood has none.
    degrees = {"pattern": (EXTREMES["width"],)}
    return {name: Axis(name, every[name], degrees.get(name, ())) for name in INTRINSIC_AXES}


def bundled_retriever(
    backbone: StandaloneBackbone | None = None, cache_folder: Path | None = None
) -> Retriever:
    """Retrieval with the bundled CLIP over the world's own words."""
    from ice_core.localization.retrieval.retriever import RetrievalConfig, Retriever

    towers = load_bundled_towers(backbone or load_bundled_backbone())
    return Retriever(towers, world_vocabulary(), RetrievalConfig(), cache_folder=cache_folder)


def require_weights(path: Path) -> Path:
    """The path of a bundled file; IceError where it is missing."""
    if not path.is_file():
        raise IceError(
            f"the bundled weights {path.name} are missing: install the package again, or make "
            "them with `python tools/train_world.py`"
        )
    return path
