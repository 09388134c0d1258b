"""What `ice compose` does."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ice_core.command_line import models
from ice_core.command_line.console import progress_display
from ice_core.errors import IceError
from ice_core.files.names import check_length, is_text, printable
from ice_core.files.paths import check_writable, free_path

if TYPE_CHECKING:
    from ice_core.concepts import LearnedConcepts
    from ice_core.model.backbone import Token


def compose(arguments: argparse.Namespace) -> None:
    if arguments.out.suffix.lower() != ".png":
        raise IceError(f"--out {arguments.out} is not a PNG; name the picture for example both.png")
    if not is_text(arguments.prompt):
        raise IceError(
            f"the prompt {arguments.prompt!r} is not UTF-8 text; type it anew, or set the terminal to UTF-8"
        )
    sources: dict[str, Path] = {}
    for text in arguments.concepts:
        alias, separator, path = text.partition("=")
        if not separator:
            alias, path = "", text
        if alias in sources:
            raise IceError(
                f"--concepts {text}: {f'the alias {alias!r}' if alias else 'no alias'} was given before; "
                "write for example --concepts a=DIR --concepts b=DIR"
            )
        if not path or not os.path.exists(path):
            raise IceError(f"--concepts {text}: there is no folder or file {path!r}")
        sources[alias] = Path(path)
    for path in (arguments.checkpoint, arguments.lora):
        if path and not os.path.isfile(path):
            raise IceError(f"there is no file {path}")
    check_length(arguments.out.name)
    free_path(arguments.out)
    check_writable(arguments.out.parent)
    import torch

    from ice_core.composition import parse_prompt
    from ice_core.files.embeddings import open_concepts
    from ice_core.files.images import save_png
    from ice_core.files.lora import load_lora, lora_header
    from ice_core.model.backbone import all_lora_targets
    from ice_core.model.sampling import SamplingConfig, sample_each
    from ice_core.run.events import Progress

    loaded: dict[str, LearnedConcepts | Token] = {
        alias: open_concepts(path) for alias, path in sources.items()
    }
    lora = load_lora(arguments.lora) if arguments.lora else None
    backbone = models.open_backbone(arguments.checkpoint, arguments.device, arguments.dtype)
    prompt = parse_prompt(arguments.prompt, loaded, backbone)
    learned_on = [getattr(source, "base_fingerprint", backbone.fingerprint) for source in loaded.values()]
    if lora is not None:
        lora.check(all_lora_targets(backbone), backbone.name)
        learned_on.append(lora_header(arguments.lora).get("ice.base_fingerprint", backbone.fingerprint))
    for fingerprint in dict.fromkeys(learned_on):
        if fingerprint != backbone.fingerprint:
            print(
                f"note: learned on another base model ({fingerprint[:12]}), may look different",
                file=sys.stderr,
            )
    generator = torch.Generator().manual_seed(arguments.seed)
    pictures = sample_each(backbone, [prompt] * arguments.count, SamplingConfig(), generator, lora=lora)
    made_with = {"prompt": arguments.prompt, "seed": str(arguments.seed)}
    if lora is not None:
        made_with["lora"] = printable(arguments.lora.name)
    stage, done = "drawing pictures", 0
    try:
        with progress_display() as show:
            show(Progress(stage, 0, arguments.count))
            for done, picture in enumerate(pictures, start=1):
                print(save_png(picture, free_path(arguments.out), made_with), flush=True)
                show(Progress(stage, done, arguments.count))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{done} of {arguments.count} pictures are written") from None
