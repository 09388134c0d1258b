"""Names and titles as people give them, and what files and pictures can take of them."""

from __future__ import annotations

import unicodedata

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """The same on one line: white space as single spaces, other control characters as U+FFFD.

    So are lone surrogates, which stand for the bytes of a file's name that is not UTF-8.
    """
    line = " ".join(text.split())
    return "".join(_UNKNOWN if unicodedata.category(c) in ("Cc", "Cs") else c for c in line)
