"""What cannot work is said before any work."""

from __future__ import annotations

from collections.abc import Sequence

from ice_core.concepts import unique_key
from ice_core.errors import IceError
from ice_core.files.embeddings import check_names

MAX_LABEL_BYTES = 150
"""Of a label in UTF-8, so that an axis and a count fit into the same file's name."""


def check_labels(labels: Sequence[str], axes: Sequence[str]) -> None:
    """Raise IceError when tokens of these words could not be saved under their names."""
    keys: set[str] = set()
    for label in labels:
        if not label.strip():
            raise IceError("one of the labels is empty; write for example --labels ball,cube")
        if (size := len(label.encode("utf-8", "surrogatepass"))) > MAX_LABEL_BYTES:
            raise IceError(
                f"the label '{label[:30]}...' is {size} bytes long; use one of at most {MAX_LABEL_BYTES}"
            )
        keys.add(unique_key(label.strip(), keys))
    # Without labels the objects' names are not known yet, but the axes are.
    check_names(sorted(keys) or ["ball"], axes)
