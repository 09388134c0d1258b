"""Tensors and text in the safetensors format: the same bytes for the same content, and checked when read."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ice_core.errors import IceError

T = TypeVar("T")

MAX_HEADER = 16 * 2**20
"""Bytes of a header: one of SDXL's takes 0.3 MB, thumbnails and training notes some MB."""
MAX_TENSORS = 20_000
"""A LoRA of every layer of SDXL has 8 000, a checkpoint 2 600."""
_REMEDY = "the file is damaged or no safetensors file"
_LENGTH = struct.Struct("<Q")
_DAMAGE = (SafetensorError, OSError, ValueError, TypeError, RuntimeError, AttributeError)
"""What the library raises for damage: kinds of numbers that torch lacks bring the last two."""


@dataclass(frozen=True)
class TensorFile:
    """What a safetensors file holds, read to memory. header: its text entries."""

    path: Path
    header: Mapping[str, str]
    tensors: Mapping[str, Tensor]

    def entry(self, name: str, kind: type[T], default: T) -> T:
        """The entry `name` of the header as a value of JSON; IceError where it is another kind of value."""
        text = self.header.get(name)
        return default if text is None else plain_value(text, kind, f"{name} in the header of {self.path}")


def plain_value(text: str, kind: type[T], where: str) -> T:
    """A text of JSON as a value of this kind (a bool is no int). Raises IceError for anything else."""
    try:
        value: Any = json.loads(text)
    # Python gives up on lists within lists within lists by RecursionError.
    except (ValueError, RecursionError) as error:
        raise IceError(f"{where} is {text[:60]!r}, not JSON ({error}); the file is damaged") from error
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise IceError(f"{where} is {text[:60]!r}, not {kind.__name__}; the file is damaged")
    return value


def tensor_bytes(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bytes:
    """The content of a file; the library leaves the order of the header's entries to chance."""
    data = save({name: value.contiguous() for name, value in tensors.items()}, dict(header))
    (length,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + length
    plain = json.loads(data[_LENGTH.size : start])
    plain["__metadata__"] = dict(sorted(header.items()))
    text = json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode()
    # Tensors begin at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    return _LENGTH.pack(len(text)) + text + data[start:]


def read_tensors(path: Path, remedy: str = _REMEDY) -> TensorFile:
    """Read a whole file. Raises IceError when it is missing, damaged or names more than a file can hold.

    remedy: what the message ends with.
    """
    return TensorFile(Path(path), *_read(Path(path), remedy, lambda file, name: file.get_tensor(name)))


def read_header(path: Path, remedy: str = _REMEDY) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Text entries of a file's header and the shapes of its tensors, without reading those.

    Raises IceError as `read_tensors` does.
    """
    return _read(Path(path), remedy, lambda file, name: tuple(file.get_slice(name).get_shape()))


def _read(path: Path, remedy: str, take: Callable[[Any, str], T]) -> tuple[dict[str, str], dict[str, T]]:
    """Text entries, and what is taken of each tensor by its name in an open file."""
    if not path.is_file():
        raise IceError(f"there is no file {path}")
    problem = ""
    try:
        if (length := _claimed_length(path)) > MAX_HEADER:
            problem = f"its header claims {length} bytes of at most {MAX_HEADER}"
        else:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                if len(names) <= MAX_TENSORS:
                    return dict(file.metadata() or {}), {name: take(file, name) for name in names}
                problem = f"it names more than {MAX_TENSORS} tensors"
    except _DAMAGE as error:
        raise IceError(f"cannot read {path}: {error}; {remedy}") from error
    raise IceError(f"cannot read {path}: {problem}; {remedy}")


def _claimed_length(path: Path) -> int:
    """Bytes that the header is said to take; the library looks whether they are there."""
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
    return int(_LENGTH.unpack(start)[0]) if len(start) == _LENGTH.size else 0
