"""A checkpoint's file: its weights by name, and modules filled with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ice_core.errors import IceError
from ice_core.standalone.kinds import Shapes
from ice_core.tensor_files.digest import file_sha256
from ice_core.tensor_files.pickle_file import plain_tensors, read_pickle
from ice_core.tensor_files.safetensors_file import read_tensors

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class WeightFile:
    """An opened file. tensors: by key, mapped from the file and not yet in memory; fingerprint: computes the
    file's SHA-256, IceError when it was changed since."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    fingerprint: Callable[[], str]

    @property
    def shapes(self) -> Shapes:
        return {key: tuple(value.shape) for key, value in self.tensors.items()}

    def fill(self, module: M, names: Mapping[str, str], device: torch.device, dtype: torch.dtype) -> M:
        """`module` on `device` with the file's weights; names: module key -> key in the file.

        Raises IceError where a weight is missing or of another shape.
        """
        expected = module.state_dict()
        if missing := sorted(name for name in names.values() if name not in self.tensors):
            raise IceError(
                f"{self.path.name} lacks {len(missing)} weights, first {missing[0]}: it is incomplete, or "
                "of an unknown variant; download it again or use another checkpoint"
            )
        state = {}
        for key, name in names.items():
            value, shape = self.tensors[name], expected[key].shape
            # A 1 x 1 convolution [C, D, 1, 1] and a linear layer [C, D] hold the same numbers.
            alike = value.squeeze().shape == torch.Size(n for n in shape if n != 1)
            if not alike or value.numel() != shape.numel():
                raise IceError(
                    f"{self.path.name}: {name} has shape {tuple(value.shape)}, expected {tuple(shape)}"
                )
            state[key] = value.reshape(shape).to(device, dtype)
        module.load_state_dict(state, strict=True, assign=True)
        return module.to(device)


def open_weights(path: Path) -> WeightFile:
    """The file at `path`: .safetensors, or an older pickle that runs no code.

    Raises IceError for a file that is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise IceError(f"there is no model file at {path}; give the path of a .safetensors checkpoint")
    if path.suffix.lower() == ".safetensors":
        content = read_tensors(path, "the file is damaged or cut short; download it again")
        tensors, metadata = dict(content.tensors), dict(content.header)
    elif path.suffix.lower() in (".ckpt", ".pt", ".pth"):
        tensors, metadata = _read_pickle(path), {}
    else:
        raise IceError(f"{path.name} is no checkpoint by its name; give a .safetensors file")
    # Layers that take no place in the file could be named without end; a mark, such as "v_pred", is no layer.
    tensors = {name: value for name, value in tensors.items() if value.numel() or "." not in name}
    stat = path.stat()
    fingerprint = partial(_sha256, path.resolve(), stat.st_mtime_ns, stat.st_size)
    return WeightFile(path, tensors, metadata, fingerprint)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    state = read_pickle(path, "get the same model as .safetensors")
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return plain_tensors(state) if isinstance(state, dict) else {}


@cache
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    stat = path.stat()
    if (stat.st_mtime_ns, stat.st_size) != (mtime_ns, size):
        raise IceError(f"{path} was changed after it was loaded: load the model again")
    return file_sha256(path)
