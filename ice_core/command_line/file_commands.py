"""What `ice inspect` and `ice convert` do. No model is loaded, and nothing in a file is run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from ice_core.errors import IceError
from ice_core.files.names import printable
from ice_core.files.paths import atomic_write, check_writable, free_path

if TYPE_CHECKING:
    from rich.table import Table

    from ice_core.files.inspecting import Contents


def inspect(arguments: argparse.Namespace) -> None:
    _check_there(arguments.paths)
    if arguments.thumbnail and len(arguments.paths) > 1:
        raise IceError(f"--thumbnail is for one file, but {len(arguments.paths)} were given")
    from ice_core.files.inspecting import inspect_path

    found = [inspect_path(path) for path in arguments.paths]
    if arguments.json:
        print(json.dumps([contents.to_plain() for contents in found], indent=2))
    else:
        _print_tables(found)
    if arguments.thumbnail:
        picture = found[0].thumbnail
        if picture is None:
            raise IceError(f"{arguments.paths[0]} has no thumbnail; leave --thumbnail out")
        written = atomic_write(free_path(arguments.thumbnail), picture)
        print(f"thumbnail: {written}", file=sys.stderr if arguments.json else sys.stdout)


def convert(arguments: argparse.Namespace) -> None:
    _check_there(arguments.sources)
    check_writable(arguments.out.parent)
    from ice_core.files.converting import convert

    for path in convert(arguments.sources, arguments.out):
        print(path)


def _check_there(paths: list[os.PathLike[str]]) -> None:
    for path in paths:
        if not os.path.exists(path):
            raise IceError(f"there is no file or folder {path}")


def _print_tables(found: list[Contents]) -> None:
    from rich.console import Console

    # A pipe has no width of its own, and a cut name is of no use there.
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False, emoji=False)
    for contents in found:
        console.print(_table(contents))


def _table(contents: Contents) -> Table:
    """Names on the left, what is known on the right; tokens last, with their shapes."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    base = contents.base
    name, architecture, fingerprint = (base.get(n, "") for n in ("name", "architecture", "fingerprint"))
    rows = {
        "fits": contents.family,
        "made with": ", ".join(text for text in (name, architecture, fingerprint[:12]) if text),
        "objects": ", ".join(k if k == label else f"{k} ({label})" for k, label in contents.labels.items()),
        "axes": ", ".join(contents.axes),
        "seed": "" if contents.seed is None else str(contents.seed),
        "steps": "" if contents.steps is None else str(contents.steps),
        **contents.facts,
        "thumbnail": "yes, see --thumbnail" if contents.thumbnail else "",
        **{
            f"read of {key}": ", ".join(f"{a} {w}" for a, w in r.items())
            for key, r in contents.readings.items()
        },
        **{
            f"{{{token}}}": ", ".join(f"{encoder} {n} x {width}" for encoder, (n, width) in rows.items())
            for token, rows in contents.tokens.items()
        },
    }
    title = Text(printable(f"{contents.path}: {contents.kind}"))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
    for left, right in rows.items():
        if right:
            # Whoever made the file wrote these: nothing of it may move the cursor.
            table.add_row(Text(printable(left)), Text(printable(right)))
    return table
