"""Ways to spoil a file, drawn by a seed: bytes anywhere, and what its format gives a meaning to."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from typing import Any

import torch

_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**31, 2**32 + 1, 2**63 - 1, 2**64 - 1, 10**30, 1.5, 1e308)
_TEXTS = (
    "", "x", "../../evil", "a\0b", "\x1b[2J", "\ud800", "9" * 5000, "1e999", "NaN", "-Infinity", "null",
    "true", "{}", "[]", "[[]]", '{"a": 1}', "[" * 100_000, '{"a":' * 100_000, "x" * 100_000,
    "data:image/png;base64,AAAA",
)  # fmt: skip
_TYPES = ("F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "U64", "nothing")
_WILD = (float("nan"), float("inf"), float("-inf"), 3e38, 0.0)


def spoiled(name: str, data: bytes, rng: random.Random) -> bytes:
    """The file's content changed in one to three ways."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_ways(name))(data, rng)
    return data


def _ways(name: str) -> tuple[Any, ...]:
    ending = name.rpartition(".")[2]
    anywhere = (_flip, _cut, _insert, _remove, _overwrite, _repeat, _swap)
    special = {
        "safetensors": (_header, _entry, _entry, _tensor, _tensor, _values, _crowded),
        "json": (_json, _json, _json),
        "pt": (_zip, _deflated, _expanded),
        "bin": (_zip, _deflated, _expanded),
        "ckpt": (_zip, _deflated, _expanded, _wrong_content),
        "png": (_png_size,),
    }
    return anywhere + special.get(ending, ()) * 2


def _place(data: bytes, rng: random.Random) -> int:
    """Anywhere, but as often in the first 400 bytes or the last, where formats keep what they are."""
    ends = (rng.randrange(min(400, len(data)) or 1), len(data) - 1 - rng.randrange(min(400, len(data)) or 1))
    return max(0, rng.choice((*ends, rng.randrange(len(data) or 1))))


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 12) if data else 0):
        changed[_place(data, rng)] = rng.choice((0, 255, 127, rng.randrange(256)))
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at:]


def _remove(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.randint(1, 64) :]


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    at, length = _place(data, rng), rng.randint(1, 200)
    return data[:at] + bytes([rng.choice((0, 255, 128))]) * length + data[at + length :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at, length = _place(data, rng), rng.randint(1, 200)
    return data[: at + length] + data[at : at + length] * rng.randint(1, 20) + data[at + length :]


def _swap(data: bytes, rng: random.Random) -> bytes:
    one, other, length = _place(data, rng), _place(data, rng), rng.randint(1, 40)
    changed = bytearray(data)
    first, second = data[one : one + length], data[other : other + length]
    changed[one : one + len(second)], changed[other : other + len(first)] = second, first
    return bytes(changed)


def _junk(rng: random.Random) -> Any:
    return rng.choice((*_NUMBERS, *_TEXTS, None, True, [], {}, [1, "a", None], {"a": {"b": []}}))


def _replaced(plain: Any, rng: random.Random) -> Any:
    """Plain data with one value, somewhere in it, replaced, left out or added."""
    if rng.random() < 0.15 or not isinstance(plain, dict | list) or not plain:
        return _junk(rng)
    inside = dict(plain) if isinstance(plain, dict) else dict(enumerate(plain))
    key = rng.choice(list(inside))
    what = rng.random()
    if what < 0.1:
        del inside[key]
    elif what < 0.2:
        inside[_text(rng) if isinstance(plain, dict) else len(inside)] = _junk(rng)
    else:
        inside[key] = _replaced(inside[key], rng)
    return inside if isinstance(plain, dict) else list(inside.values())


def _text(rng: random.Random) -> str:
    return rng.choice(_TEXTS)


def _dumped(plain: Any) -> bytes:
    return json.dumps(plain).encode("utf-8", "surrogatepass")


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        return _dumped(_replaced(json.loads(data), rng))
    except (ValueError, RecursionError):
        return _flip(data, rng)


def _parts(data: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Header and values of a safetensors file that is whole so far."""
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        return (header, data[8 + length :]) if isinstance(header, dict) else None
    except (struct.error, ValueError, RecursionError, OverflowError):
        return None


def _joined(header: dict[str, Any], values: bytes) -> bytes:
    text = _dumped(header)
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + values


def _header(data: bytes, rng: random.Random) -> bytes:
    if (parts := _parts(data)) is None:
        return _flip(data, rng)
    header = _replaced(parts[0], rng)
    return _joined(header if isinstance(header, dict) else {}, parts[1])


def _entry(data: bytes, rng: random.Random) -> bytes:
    """Another text in the header; where it is JSON, something within it."""
    parts = _parts(data)
    if parts is None or not isinstance(entries := parts[0].get("__metadata__"), dict) or not entries:
        return _flip(data, rng)
    name = rng.choice(list(entries))
    try:
        inner = json.loads(entries[name])
        text = json.dumps(_replaced(inner, rng)) if rng.random() < 0.7 else _text(rng)
    except (TypeError, ValueError, RecursionError):
        text = _text(rng)
    entries[name] = text
    return _joined(parts[0], parts[1])


def _tensor(data: bytes, rng: random.Random) -> bytes:
    """Another type, shape, place or name of a tensor, also with the right number of bytes."""
    if (parts := _parts(data)) is None:
        return _flip(data, rng)
    header, values = parts
    names = [
        n for n, one in header.items() if n != "__metadata__" and isinstance(one, dict) and "shape" in one
    ]
    if not names:
        return _flip(data, rng)
    name = rng.choice(names)
    one = header[name]
    what, shape = rng.randrange(5), list(one["shape"]) if isinstance(one["shape"], list) else []
    if what == 0:
        one["dtype"] = rng.choice(_TYPES)
    elif what == 1:
        one["shape"] = [rng.choice(_NUMBERS) if rng.random() < 0.5 else side for side in (shape or [1])]
    elif what == 2:
        one["data_offsets"] = [rng.choice(_NUMBERS), rng.choice((*_NUMBERS, len(values)))]
    elif what == 3:
        whole = [side for side in shape if isinstance(side, int)]
        one["shape"] = rng.choice((whole[::-1], [1, *whole], [*whole, 1], [torch.Size(whole).numel()]))
    else:
        header[_text(rng) or name + "/x"] = header.pop(name)
    return _joined(header, values)


def _values(data: bytes, rng: random.Random) -> bytes:
    """Numbers that are none, or as large as can be."""
    if (parts := _parts(data)) is None or len(parts[1]) < 8:
        return _flip(data, rng)
    header, values = parts
    at = 4 * rng.randrange(len(values) // 4)
    return _joined(header, values[:at] + struct.pack("<f", rng.choice(_WILD)) + values[at + 4 :])


def _crowded(data: bytes, rng: random.Random) -> bytes:
    """Very many tensors without values, or one whose shape overflows."""
    if (parts := _parts(data)) is None:
        return _flip(data, rng)
    header, values = parts
    stem = rng.choice(
        ("model.diffusion_model.input_blocks.{}.0.in_layers.2.weight", "tokens/x.{}/clip_l", "{}")
    )
    empty = {"dtype": "F32", "shape": [rng.choice((0, 2**40)), 0], "data_offsets": [0, 0]}
    header |= {
        stem.format(i): empty for i in range(100_000 if rng.random() < 0.05 else rng.choice((10, 3000)))
    }
    return _joined(header, values)


def _entries(data: bytes) -> list[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return [(name, file.read(name)) for name in file.namelist()]
    # Whatever a spoiled archive makes the reader raise.
    except Exception:
        return []


def _archive(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


def _zip(data: bytes, rng: random.Random) -> bytes:
    """Something within one part of the archive, or a part less."""
    entries = _entries(data)
    if not entries:
        return _flip(data, rng)
    at = rng.randrange(len(entries))
    name, content = entries[at]
    entries[at] = name, rng.choice((_flip, _cut, _insert, _swap, _repeat))(content, rng)
    return _archive(entries if rng.random() < 0.8 else entries[:at] + entries[at + 1 :])


def _deflated(data: bytes, rng: random.Random) -> bytes:
    """The same compressed, with a part that unpacks to much."""
    entries = _entries(data)
    folder = entries[0][0].partition("/")[0] if entries else "archive"
    entries.append((f"{folder}/data/99", bytes(10**8 if rng.random() < 0.05 else rng.choice((10, 10**6)))))
    return _archive(entries, zipfile.ZIP_DEFLATED)


def _expanded(data: bytes, rng: random.Random) -> bytes:
    """A tensor that repeats one number over a shape that no memory takes."""
    side = rng.choice((10, 10**5, 2**24))
    buffer = io.BytesIO()
    torch.save({rng.choice(("emb_params", "<x>", "clip_l")): torch.ones(1).expand(side, side)}, buffer)
    return buffer.getvalue()


def _wrong_content(data: bytes, rng: random.Random) -> bytes:
    content = rng.choice(
        ({"state_dict": 3}, {"state_dict": []}, [1], 5, "text", {1: torch.ones(1)}, torch.ones(2))
    )
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=rng.random() < 0.5)
    return buffer.getvalue()


def _png_size(data: bytes, rng: random.Random) -> bytes:
    """Another size, depth or kind in the header, with its checksum put right."""
    if len(data) < 33:
        return _flip(data, rng)
    sides = [rng.choice((0, 1, 31, 32, 33, 13_300, 65_535, 2**31 - 1, 5_000_000)) for _ in range(2)]
    depth, kind = rng.choice((1, 2, 4, 8, 16, 99)), rng.choice((0, 2, 3, 4, 6, 9))
    chunk = b"IHDR" + struct.pack(">IIBB", *sides, depth, kind) + data[26:29]
    return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
