"""Names and titles as people give them, and what files and pictures can take of them."""

from __future__ import annotations

import os
import re
import unicodedata

from ice_core.errors import IceError

MAX_BYTES = 240
"""Of a file's name: disks take 255, and a name may be counted up ("-2")."""

_DEVICE = re.compile(r"(con|prn|aux|nul|con(in|out)\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\..*)?", re.I)
"""Names that Windows keeps for devices, whatever the ending."""
_DRIVE = re.compile(r"^[A-Za-z]:")
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """The same on one line: white space as single spaces, other control characters as U+FFFD.

    So are lone surrogates, which stand for the bytes of a file's name that is not UTF-8.
    """
    line = " ".join(text.split())
    return "".join(_UNKNOWN if unicodedata.category(c) in ("Cc", "Cs") else c for c in line)


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: what a terminal hands over in another encoding cannot."""
    return not any(unicodedata.category(c) == "Cs" for c in text)


def parts_of(name: str) -> list[str]:
    """Folders and file of a relative path, by either kind of slash."""
    return re.split(r"[/\\]", name)


def check_name(name: str) -> None:
    """Raise IceError for a relative path that no file should have, or that could not be typed in a prompt.

    Refused: empty names, `..`, absolute paths, drive letters, NUL and other control characters, spaces,
    commas, braces, the devices of Windows ("con"), and parts of more than `MAX_BYTES` bytes.
    """
    if not name:
        raise IceError("the name is empty; write one, such as 'ball'")
    parts = parts_of(name)
    if any(part in ("", ".", "..") for part in parts) or _DRIVE.match(name):
        raise IceError(f"the name {name!r} leaves the output folder; use a plain name such as 'ball'")
    if not is_text(name):
        raise IceError(f"the name {name!r} is not UTF-8 text; type it anew, or set the terminal to UTF-8")
    if any(ord(c) < 32 or ord(c) == 127 or c in ' ,:*?"<>|{}' or c.isspace() for c in name):
        raise IceError(
            f"the name {name!r} cannot be used in a prompt or as a file; "
            'leave out spaces, commas and any of : * ? " < > | { }'
        )
    for part in parts:
        check_length(part)
        if _DEVICE.fullmatch(part):
            raise IceError(f"the name {part!r} is a device's on Windows, not a file's; use another word")


def check_length(name: str) -> None:
    """Raise IceError when a file of this name could not be made, or not be counted up."""
    size = len(os.fsencode(name))
    if size > MAX_BYTES:
        raise IceError(f"the name '{name[:30]}...' is {size} bytes long; use one of at most {MAX_BYTES}")


def as_disks_compare(name: str) -> str:
    """The same for names that are one file where capital letters and kinds of accents do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
