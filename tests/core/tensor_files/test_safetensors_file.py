"""Safetensors: the same bytes for the same content, and headers that claim more than there is."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ice_core.errors import IceError
from ice_core.tensor_files import safetensors_file
from ice_core.tensor_files.safetensors_file import plain_value, read_header, read_tensors, tensor_bytes


def written(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def test_content_comes_back_and_entries_are_in_order(tmp_path: Path) -> None:
    tensors = {"a/ä": torch.randn(3, 5), "b": torch.arange(7, dtype=torch.uint8), "c": torch.tensor(2.0)}
    header = {f"k{i}": f"„{i}“" for i in range(20)}
    data = tensor_bytes(tensors, header)
    assert data == tensor_bytes(dict(reversed(tensors.items())), dict(reversed(header.items())))
    (tmp_path / "a.safetensors").write_bytes(data)
    file = read_tensors(tmp_path / "a.safetensors")
    assert file.header == header
    assert all(torch.equal(tensors[name], value) for name, value in file.tensors.items())
    assert load_file(tmp_path / "a.safetensors").keys() == tensors.keys()
    assert read_header(tmp_path / "a.safetensors")[1]["a/ä"] == (3, 5)


def test_a_header_that_claims_more_than_is_read_is_refused_before_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(IceError, match="claims 1099511627776 bytes"):
        read_header(tmp_path / "a.safetensors")


def test_more_tensors_than_any_file_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_file, "MAX_TENSORS", 3)
    save_file({str(i): torch.zeros(1) for i in range(4)}, tmp_path / "a.safetensors")
    with pytest.raises(IceError, match="more than 3 tensors"):
        read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        b'{"a":{"dtype":"F99","shape":[0],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,0]}}',
        b'{"__metadata__":{"a":1}}',
    ],
)
def test_damaged_headers_are_ice_errors(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(IceError, match="cannot read"):
        read_tensors(written(tmp_path / "a.safetensors", content))


@pytest.mark.parametrize("text", ["", "[" * 100_000, "nought", '"3"', "3.5", "true", "null", "[3]"])
def test_text_that_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(IceError, match=r"ice\.seed is"):
        plain_value(text, int, "ice.seed")
    assert plain_value(json.dumps(3), int, "ice.seed") == 3
