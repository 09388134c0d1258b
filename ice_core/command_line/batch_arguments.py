"""The arguments of `ice batch`, beside those that it shares with `ice extract`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ice_core.command_line import batch_commands as commands
from ice_core.command_line.library_arguments import add_library_folder


def add_batch(parser: argparse.ArgumentParser) -> None:
    """What says where pictures come from, where concepts go, and who works."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="pictures, in folders of it too")
    add_library_folder(parser)
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help="for all that is learned")
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="page with what came of each picture (DIR/summary.html)"
    )
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="who works (local)")
    parser.add_argument("--address", default="", metavar="A", help="of a Ray cluster (starts one here)")
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="with --engine ray: models at work (one per GPU, else one per machine)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="of each worker (1 with --engine ray, else as many as there are cores)",
    )
    parser.add_argument(
        "--gpus", type=float, metavar="N", help="of each worker with --engine ray, below 1 to share one (1)"
    )
    parser.set_defaults(run=commands.batch, budget=None, refine=None, refine_text=False, reading_noises=None)
