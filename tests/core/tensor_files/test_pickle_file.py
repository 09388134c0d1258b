"""Pickles of others: no code, and no more memory than the file has bytes."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from ice_core.errors import IceError
from ice_core.tensor_files.pickle_file import plain_tensors, read_pickle


def test_tensors_come_out_as_they_were(tmp_path: Path) -> None:
    rows = torch.randn(3, 8)
    torch.save({"a": rows, "b": 7, 5: rows}, tmp_path / "a.pt")
    found = plain_tensors(read_pickle(tmp_path / "a.pt", ""))
    assert list(found) == ["a"]
    assert torch.equal(found["a"], rows)


def test_a_zip_that_unpacks_to_more_than_its_size_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(500_000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.pt").stat().st_size < 20_000
    with pytest.raises(IceError, match="unpacks to more than its own size; ask"):
        read_pickle(tmp_path / "bomb.pt", "ask for another")


def test_tensors_that_repeat_few_numbers_over_a_large_shape_are_left_out(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(100_000, 100_000), "b": torch.ones(2)}, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 3000
    assert list(plain_tensors(read_pickle(tmp_path / "a.pt", ""))) == ["b"]


def test_tensors_without_plain_values_are_left_out() -> None:
    strange = {
        "meta": torch.zeros(2, device="meta"),
        "sparse": torch.eye(3).to_sparse(),
    }
    assert plain_tensors(strange) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a text file\n" * 20,
        b"PK\x03\x04" + bytes(60),
        pickle.dumps([[1], 2], protocol=4),
        pickle.dumps(Path("code")),
        b"\x80\x02}q\x00.",
        b"\x80\x02U\xff.",
        b"\x80\x02" + b"(" * 5000 + b".",
        b"\x80\x02ccollections\nOrderedDict\nq\x00.",
    ],
)
def test_whatever_the_reader_raises_is_an_ice_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(IceError, match=r"a\.ckpt safely.*; ask for another"):
        read_pickle(tmp_path / "a.ckpt", "ask for another")
