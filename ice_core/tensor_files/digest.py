"""What tells one file's content from another's."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCK = 2**22


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read block by block. Raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
