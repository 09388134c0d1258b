"""One token out of whatever file it comes from: the three layouts of textual inversions.

ComfyUI's and A1111's `emb_params`, one key per text encoder (`clip_l`, `clip_g`), A1111's pickles with
`string_to_param`, and diffusers' single entry of any name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ice_core.concepts import LearnedConcepts
from ice_core.errors import IceError
from ice_core.model.backbone import Token
from ice_core.tensor_files.pickle_file import plain_tensors, read_pickle
from ice_core.tensor_files.safetensors_file import TensorFile, read_tensors

EMBEDDINGS = (".safetensors", ".pt", ".bin")
"""Endings of embeddings' files."""
WHOLE = "whole"
"""Role of the file that has all rows of an object."""
_ENCODER_OF_WIDTH = {1024: "clip_h", 1280: "clip_g"}
"""Whose rows others' `emb_params` holds, by width; anything else is read as CLIP-L's."""


def load_token(path: Path) -> Token:
    """Read a textual inversion of any maker as rows [n, D] per text encoder, float32.

    `.safetensors`; `.pt` and `.bin` only as far as torch.load(weights_only=True) goes. A file of ours keeps
    its token name, any other takes the file's. Raises IceError for a file that holds no embedding.
    """
    path = Path(path)
    if not path.is_file():
        raise IceError(f"there is no embedding file {path}")
    if path.suffix.lower() == ".safetensors":
        return token_of(read_tensors(path))
    if path.suffix.lower() in (".pt", ".bin"):
        return token_of(TensorFile(path, {}, _read_pickle(path)))
    raise IceError(f"{path} is not an embedding; give a .safetensors, .pt or .bin file")


def token_of(file: TensorFile) -> Token:
    """The token of a file that was read; of one of others `emb_params`, or the only tensor by any name."""
    header, tensors = file.header, file.tensors
    rows = {k: v for k, v in tensors.items() if k.startswith("clip_")}
    if not rows and "emb_params" not in tensors and len(tensors) > 1:
        names = ", ".join(sorted(tensors)[:3])
        raise IceError(
            f"{file.path} holds {len(tensors)} tensors ({names}, ...); it is not a textual inversion"
        )
    if not rows and tensors:
        first = tensors.get("emb_params", next(iter(tensors.values())))
        rows = {_encoder_of(header, first): first}
    rows = as_rows(rows, str(file.path))
    if "ice.key" not in header:
        return Token(file.path.stem, rows)
    if header.get("ice.role") == WHOLE:
        return Token(header["ice.key"], rows)
    return Token(f"{header['ice.key']}.{header.get('ice.axis') or header.get('ice.role')}", rows)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    content = read_pickle(path, "convert it to .safetensors first, where you trust it")
    if isinstance(content, Mapping) and isinstance(content.get("string_to_param"), Mapping):
        content = content["string_to_param"]
    if isinstance(content, Tensor):
        content = {"emb_params": content}
    if not isinstance(content, Mapping):
        return {}
    return plain_tensors(content)


def _encoder_of(header: Mapping[str, str], rows: Tensor) -> str:
    """Whose rows `emb_params` holds: as one of our files says, else by their width."""
    if found := re.fullmatch(r'\["(clip_\w+)"\]', header.get("ice.encoders", "")):
        return found[1]
    return _ENCODER_OF_WIDTH.get(rows.shape[-1] if rows.ndim else 0, "clip_l")


def as_rows(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors by text encoder as rows [n, D], float32 on the CPU; a single row may lack its dimension.

    Raises IceError for what are no rows of finite numbers, the same number of them for each encoder.
    """
    rows = {k: v[None] if v.ndim == 1 else v for k, v in tensors.items()}
    if not rows or any(v.ndim != 2 or not v.numel() or v.is_complex() for v in rows.values()):
        raise IceError(f"{where} holds no embedding rows; it is not a textual inversion")
    if len({len(v) for v in rows.values()}) > 1:
        counts = ", ".join(f"{name} {len(v)}" for name, v in rows.items())
        raise IceError(f"{where} holds different numbers of rows ({counts}); train or download it again")
    rows = {k: v.detach().to("cpu", torch.float32) for k, v in rows.items()}
    if not all(v.isfinite().all() for v in rows.values()):
        raise IceError(f"{where} holds values that are not numbers; train or download it again")
    return rows


def check_alike(learned: LearnedConcepts, where: str) -> LearnedConcepts:
    """The same concepts. Raises IceError unless all tokens have the same encoders and widths."""
    widths = {
        tuple(sorted((name, rows.shape[1]) for name, rows in token.rows.items()))
        for token in learned.tokens.values()
    }
    if len(widths) > 1:
        raise IceError(f"{where} holds tokens of several kinds ({sorted(widths)}); extract again")
    return learned
