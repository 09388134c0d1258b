"""The arguments of `ice library`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ice_core.command_line import library_commands as commands
from ice_core.library.place import NAME, VARIABLE, default_folder


def add_library(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`ice library` with its own commands."""
    library = subparsers.add_parser("library", help="keep concepts of many pictures and find them again")
    inner = library.add_subparsers(title="commands", required=True, metavar="COMMAND")

    add = inner.add_parser("add", help="keep what extractions learned")
    add.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="folder of an extraction, or a concept set"
    )
    _add_tags(add, "a word for all of these concepts")
    _add_common(add, commands.add)

    listed = inner.add_parser("list", help="list concepts, the newest first")
    _add_filters(listed)
    _add_common(listed, commands.list_)

    search = inner.add_parser(
        "search",
        help="find concepts by words, by a picture, or by what they have in common with another",
        epilog="example: ice library search red ball --has material=metal",
    )
    search.add_argument(
        "words", nargs="*", metavar="WORD", help="begins a word of label, readings, tags or title"
    )
    search.add_argument(
        "--picture", type=Path, metavar="FILE", help="what looks like this picture, best first"
    )
    search.add_argument(
        "--clip",
        metavar="NAME",
        help="what compares pictures, as NAME/WEIGHTS or NAME=FILE (the bundled CLIP)",
    )
    search.add_argument("--same", metavar="AXIS", help="the same on this axis as the concept of --like")
    search.add_argument(
        "--like", type=int, metavar="ID", help="concept whose property is wanted, with --same"
    )
    _add_filters(search)
    _add_common(search, commands.search)

    show = inner.add_parser("show", help="show all that is known of a concept")
    show.add_argument("id", type=int, metavar="ID")
    show.add_argument("--thumbnail", type=Path, metavar="FILE", help="write its picture there")
    _add_common(show, commands.show)

    export = inner.add_parser("export", help="write concept sets to keep or to send")
    export.add_argument("ids", nargs="+", type=int, metavar="ID")
    export.add_argument(
        "--out", type=Path, default=Path("ice-output"), metavar="DIR", help="folder (./ice-output)"
    )
    _add_common(export, commands.export)

    taken = inner.add_parser("import", help="keep every concept set in files and folders")
    taken.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="concept set, or folder of such")
    _add_tags(taken, "a word for all of these concepts")
    _add_common(taken, commands.import_)

    remove = inner.add_parser("remove", help="forget concepts")
    remove.add_argument("ids", nargs="+", type=int, metavar="ID")
    _add_common(remove, commands.remove)

    check = inner.add_parser("check", help="remove what a crash left, and tell of damage")
    _add_common(check, commands.check)


def add_library_option(parser: argparse.ArgumentParser) -> None:
    """`--library` of a command that may file its results."""
    parser.add_argument("--library", type=Path, metavar="DIR", help="also keep the concepts in this library")


def add_library_folder(parser: argparse.ArgumentParser) -> None:
    """`--library` of a command that needs one."""
    parser.add_argument(
        "--library", type=Path, default=default_folder(), metavar="DIR",
        help=f"its folder (${VARIABLE}, else ./{NAME})",
    )  # fmt: skip


def _add_common(parser: argparse.ArgumentParser, run: object) -> None:
    add_library_folder(parser)
    parser.add_argument("--json", action="store_true", help="write JSON for programs, no table")
    parser.set_defaults(run=run)


def _add_tags(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help=f"{what}; may be repeated")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    _add_tags(parser, "only with this tag")
    parser.add_argument(
        "--base", default="", metavar="FAMILY", help="only of this family, such as stable-diffusion-v1"
    )
    parser.add_argument(
        "--has", action="append", default=[], metavar="AXIS=VALUE", help="only what was read so"
    )
    parser.add_argument(
        "--since", default="", metavar="DAY", help="added on this day or later, as 2026-05-31"
    )
    parser.add_argument("--until", default="", metavar="DAY", help="added on this day or earlier")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (50)")
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="leave out the first so many (0)")
