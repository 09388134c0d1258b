"""The arguments of `ice inspect` and `ice convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ice_core.command_line import file_commands as commands


def add_inspect(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = subparsers.add_parser("inspect", help="say what concept sets, embeddings and LoRAs hold")
    inspect.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="concept set, embedding of any maker (.safetensors, .pt, .bin), LoRA, or folder of embeddings",
    )
    inspect.add_argument("--json", action="store_true", help="for programs: a list with one entry per file")
    inspect.add_argument(
        "--thumbnail",
        type=Path,
        metavar="FILE",
        help="write its picture there; counted up, never overwritten",
    )
    inspect.set_defaults(run=commands.inspect)


def add_convert(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    convert = subparsers.add_parser(
        "convert",
        help="split and join concept sets, and write embeddings so that every tool loads them",
        epilog="A concept set becomes a folder of embeddings, a folder or several embeddings a concept set, "
        "and one embedding of any maker a .safetensors. Example: ice convert old.pt --out new.safetensors",
    )
    convert.add_argument("sources", nargs="+", type=Path, metavar="FILE", help="what `ice inspect` takes")
    convert.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="file, or folder for embeddings, to write; counted up, never overwritten",
    )
    convert.set_defaults(run=commands.convert)
