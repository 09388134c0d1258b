"""A folder belongs to one process at a time, and to none after a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ice_core.errors import IceError
from ice_core.files.lock import claimed

CLAIM_AND_WAIT = """
import sys, time
from pathlib import Path
from ice_core.files.lock import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(600)
"""


def test_a_claim_keeps_others_out_until_its_process_dies(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", CLAIM_AND_WAIT, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "claimed\n"
            with pytest.raises(IceError, match="another run is at work in"), claimed(out):
                raise AssertionError("claimed twice")
        finally:
            other.kill()
    with claimed(out):
        pass


def test_a_claim_makes_the_folder_and_takes_it_away_when_it_stayed_empty(tmp_path: Path) -> None:
    with claimed(tmp_path / "new" / "deeper"):
        assert (tmp_path / "new" / "deeper").is_dir()
    assert not list(tmp_path.iterdir())
    with claimed(tmp_path / "new" / "deeper"):
        (tmp_path / "new" / "mine").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "mine"]


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IceError, match="cannot write to"), claimed(tmp_path / "file" / "out"):
        pass
