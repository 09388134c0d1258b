"""The bundled model: a checkpoint in Stable Diffusion 1's own layout, and the CLIP that belongs to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file

from ice_core.errors import IceError
from ice_core.world.architecture import CLIP_CONFIG
from ice_core.world.scenes import AXES, GROUNDS

if TYPE_CHECKING:
    from ice_core.retrieval.dictionary import Vocabulary
    from ice_core.retrieval.retriever import Retriever
    from ice_core.retrieval.towers import OpenClipTowers
    from ice_core.standalone.backbone import StandaloneBackbone

WEIGHTS = Path(__file__).parent / "weights"
MODEL_FILE = WEIGHTS / "model.safetensors"
CLIP_FILE = WEIGHTS / "clip.safetensors"


def load_bundled_backbone(device: str = "cpu") -> StandaloneBackbone:
    """The small model of the rendered world, on diffusers."""
    from ice_core.standalone.checkpoint import load_checkpoint

    return load_checkpoint(_present(MODEL_FILE), device)


def load_bundled_towers(backbone: StandaloneBackbone, device: str = "cpu") -> OpenClipTowers:
    """Its CLIP: the image tower from its own file, the text tower shared with the checkpoint."""
    import open_clip

    from ice_core.retrieval.towers import OpenClipTowers
    from ice_core.standalone.ldm import text_state_to_open_clip

    model = open_clip.CLIP(**CLIP_CONFIG)
    state = load_file(_present(CLIP_FILE)) | text_state_to_open_clip(backbone.text_state())
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return OpenClipTowers(
        model.eval().requires_grad_(False),
        name="bundled",
        fingerprint=backbone.fingerprint,
        mean=open_clip.OPENAI_DATASET_MEAN,
        std=open_clip.OPENAI_DATASET_STD,
        device=device,
    )


def world_vocabulary() -> Vocabulary:
    """Every word the bundled CLIP was taught; only kinds can name an object."""
    from ice_core.retrieval.dictionary import Vocabulary

    words = [value for values in AXES.values() for value in values] + list(GROUNDS)
    return Vocabulary(tuple(words), tuple(word in AXES["kind"] for word in words))


def bundled_retriever(
    backbone: StandaloneBackbone | None = None, cache_folder: Path | None = None
) -> Retriever:
    """Retrieval with the bundled CLIP over the world's own words."""
    from ice_core.retrieval.retriever import RetrievalConfig, Retriever

    towers = load_bundled_towers(backbone or load_bundled_backbone())
    return Retriever(towers, world_vocabulary(), RetrievalConfig(), cache_folder=cache_folder)


def _present(path: Path) -> Path:
    if not path.is_file():
        raise IceError(
            f"the bundled weights {path.name} are missing: install the package again, or make "
            "them with `python benchmarks/train_world.py`"
        )
    return path
