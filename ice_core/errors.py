"""The one family of errors a user can cause."""

from __future__ import annotations


class IceError(ValueError):
    """Something the user can mend: the message names the value that was wrong and the remedy."""
