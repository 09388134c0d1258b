"""The command `ice`: its arguments and exit codes. What the commands do is in the files beside.

Neither imports torch or a model before it is needed, so that --help and errors in the arguments answer at
once.
"""

from __future__ import annotations

import argparse
import codecs
import io
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from ice_core.command_line import commands, composing
from ice_core.command_line.batch_arguments import add_batch
from ice_core.command_line.file_arguments import add_convert, add_inspect
from ice_core.command_line.library_arguments import add_library, add_library_option
from ice_core.command_line.stopping import stopped_once
from ice_core.errors import IceError
from ice_core.run.defaults import (
    ANCHORED_STEPS,
    AXES,
    BUNDLED_STEPS,
    CHECKPOINT_STEPS,
    CLIPS,
    DTYPES,
    METHODS,
)
from ice_core.version import package_version

BY_SIGNAL = 128
"""What shells add to a signal's number: 130 after Ctrl-C, 143 after SIGTERM."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it is done, 2 after bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    _print_any_path(sys.stdout)
    arguments = build_parser().parse_args(argv)
    with stopped_once() as received:
        try:
            arguments.run(arguments)
        except IceError as error:
            print(f"ice: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as interruption:
            number = received[0] if received else signal.SIGINT
            how = "terminated" if number == signal.SIGTERM else "interrupted"
            print(f"\nice: {how}{'; ' + str(interruption) if interruption.args else ''}", file=sys.stderr)
            return BY_SIGNAL + number
    return 0


def _print_any_path(stream: TextIO) -> None:
    """Let a stream take what its encoding lacks: paths as their own bytes where it is UTF-8, else escaped."""
    if isinstance(stream, io.TextIOWrapper):
        unicode = codecs.lookup(stream.encoding).name == "utf-8"
        stream.reconfigure(errors="surrogateescape" if unicode else "backslashreplace")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ice", description="Take one picture apart into concepts: objects, masks, and learned tokens."
    )
    parser.add_argument("--version", action="version", version=f"ice {package_version()}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = subparsers.add_parser("demo", help="render a small scene and take it apart with the bundled model")
    demo.add_argument("--seed", type=_seed, help="which scene, and the seed of everything else (0)")
    _add_precision(demo)
    _add_run_options(demo, "./ice-output/demo")
    demo.set_defaults(run=commands.demo)

    extract = subparsers.add_parser("extract", help="take pictures apart")
    extract.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="PNG, JPEG or WebP, any size")
    extract.add_argument("--seed", type=_seed, help="seed of everything (0)")
    _add_model_options(extract)
    _add_naming_options(extract)
    extract.add_argument(
        "--masks",
        nargs="+",
        type=Path,
        metavar="PNG",
        help="objects you marked, white is inside; one per label",
    )
    extract.add_argument(
        "--refine-masks", action="store_true", help="the masks are rough: redraw them along contours"
    )
    extract.add_argument(
        "--body-parts", action="store_true", help="objects may be named hand, eye, tail and the like"
    )
    _add_run_options(extract, "./ice-output/<name of the picture>")
    add_library_option(extract)
    extract.set_defaults(run=commands.extract)

    batch = subparsers.add_parser("batch", help="take a folder of pictures apart into a library")
    add_batch(batch)
    batch.add_argument("--seed", type=_seed, help="seed of everything (0)")
    _add_model_options(batch)
    _add_naming_options(batch)
    _add_learning_options(batch)

    compose = subparsers.add_parser(
        "compose",
        help="draw pictures from learned concepts",
        epilog='example: ice compose "a photo of a {b.cube.color} {a.ball.object}" '
        "--concepts a=ice-output/one --concepts b=ice-output/two --out both.png",
    )
    compose.add_argument(
        "prompt", help="words, and {alias.concept} for a whole object or {alias.concept.axis} for a part"
    )
    compose.add_argument(
        "--concepts",
        action="append",
        required=True,
        metavar="ALIAS=DIR",
        help="output folder of an extraction, a concept set or an embedding file; for a single one ALIAS= "
        "may be left out",
    )
    compose.add_argument(
        "--lora", type=Path, metavar="FILE", help="lora.safetensors of an extraction with --refine"
    )
    _add_model_options(compose)
    compose.add_argument("--seed", type=_seed, default=0, help="seed of the noise (0)")
    compose.add_argument("--count", type=_positive, default=1, help="how many pictures (1)")
    compose.add_argument(
        "--out",
        type=Path,
        default=Path("ice-output/composed.png"),
        metavar="PNG",
        help="picture to write (./ice-output/composed.png); counted up, never overwritten",
    )
    compose.set_defaults(run=composing.compose)

    add_library(subparsers)
    add_inspect(subparsers)
    add_convert(subparsers)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="Stable Diffusion 1.x, 2.x or XL .safetensors (bundled model)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps, ... (auto)")
    _add_precision(parser)


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="precision of the model's weights; tokens are always learned in float32 (auto: bfloat16 where "
        "an accelerator has it, else float32)",
    )


def _add_naming_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clip",
        type=_name,
        metavar="NAME",
        help="open_clip model that names the objects, as NAME/WEIGHTS or NAME=FILE (the one beside the "
        f"checkpoint's text encoder: {CLIPS['clip_l']}, 1.7 GB, for Stable Diffusion 1.x, {CLIPS['clip_h']}, "
        f"3.9 GB, for 2.x, {CLIPS['clip_g']}, 10.2 GB, for XL)",
    )
    parser.add_argument(
        "--vocabulary", type=Path, metavar="FILE", help="words that may name an object, one per line"
    )
    parser.add_argument("--labels", type=_words, metavar="A,B", help="names of the objects to look for")


def _add_learning_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--axes",
        type=_words,
        metavar="A,B",
        help="properties to learn, single words, with values of your own as finish=matte|glossy or, one a "
        "line in a file, finish=@FILE; fine<coarse among them are opposites between which an object may lie "
        f"({','.join(AXES)})",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="words: nothing is trained; anchored: tokens start at the words read of an object; paper: as "
        "published; inversion: one plain token per object (anchored)",
    )
    parser.add_argument(
        "--steps",
        type=_positive,
        metavar="N",
        help=f"training steps (at most {ANCHORED_STEPS} with --method anchored, which ends when it has "
        f"settled; else {BUNDLED_STEPS} with the bundled model, {CHECKPOINT_STEPS} with a checkpoint)",
    )


def _add_run_options(parser: argparse.ArgumentParser, out: str) -> None:
    _add_learning_options(parser)
    parser.add_argument(
        "--set",
        action="append",
        metavar="OBJECT.AXIS=VALUE",
        help="what an object is like, where it is misread; without a VALUE the property is left out",
    )
    parser.add_argument(
        "--reading-noises",
        type=_count,
        metavar="N",
        help="where the CLIP is unsure of a property, let the model decide through N noises (8 with the "
        "bundled model; else 0, for it takes 6 N passes of the model per property)",
    )
    parser.add_argument(
        "--budget",
        type=_positive,
        metavar="SECONDS",
        help="end training after so long, with --method anchored",
    )
    parser.add_argument(
        "--refine",
        type=_positive,
        metavar="N",
        help="then refine the model for these tokens in N steps and save that as a LoRA (no refinement)",
    )
    parser.add_argument(
        "--refine-text",
        action="store_true",
        help="let the refinement adapt the text encoders too",
    )
    parser.add_argument(
        "--preview-every",
        type=_positive,
        metavar="N",
        help="draw the objects every N steps into OUT/previews (never)",
    )
    parser.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        help="train in less memory and more time: compute the U-Net's activations twice",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"output folder ({out}); counted up if taken")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with an interrupted run")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^63 - 1")
    return int(text)


def _name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty; leave the option out, or name a model")
    return text


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if "" in words:
        raise argparse.ArgumentTypeError(f"{text!r} has an empty word; write for example color,material")
    return words


if __name__ == "__main__":
    sys.exit(main())
