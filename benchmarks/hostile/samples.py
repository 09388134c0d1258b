"""A whole file of each kind that this package reads, with what reads it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from ice_core.api import axes_for
from ice_core.composition import placeholders
from ice_core.concepts import Candidate, Concept, ConceptSet, LearnedConcept, LearnedConcepts, Reading
from ice_core.files.concept_set import SavedConcepts, load_concept_set, save_concept_set
from ice_core.files.converting import convert
from ice_core.files.embeddings import load_concepts, open_concepts, save_concepts
from ice_core.files.images import (
    as_data_uri,
    as_image,
    jpeg_bytes,
    load_image_with_notes,
    load_mask,
    save_png,
)
from ice_core.files.inspecting import inspect_path
from ice_core.files.lora import load_lora, lora_header, save_lora
from ice_core.model.backbone import Token
from ice_core.model.lora import Lora
from ice_core.run.folder import History, RunFolder, RunStart
from ice_core.run.settings import ExtractionSettings
from ice_core.standalone.checkpoint import load_checkpoint
from ice_core.training.config import TrainingConfig
from ice_core.training.refinement_state import RefinementConfig, RefinementState
from ice_core.training.state import TrainingState, picture_hash
from ice_core.world.bundled import MODEL_FILE

SIDE, WIDTH = 48, 16
AXES = ("color", "material")


@dataclass(frozen=True)
class Kind:
    """files: what may be spoiled, by path in a folder, each whole; read: the folder and the path that was
    spoiled -> what a user's command would do first."""

    files: Mapping[str, bytes]
    read: Callable[[Path, Path], object]


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def _token(name: str) -> Token:
    return Token(name, {"clip_l": torch.randn(1, WIDTH, generator=_rng())})


def _learned() -> LearnedConcepts:
    reading = Reading("color", (Candidate("red", 0.9), Candidate("blue", 0.1)), "clip", True, ("rust",))
    concepts = tuple(
        LearnedConcept(
            key, key, _token(f"{key}.instance"), _token(f"{key}.object"),
            {axis: _token(f"{key}.{axis}") for axis in AXES}, {"color": reading},
        )
        for key in ("ball", "cube")
    )  # fmt: skip
    return LearnedConcepts(concepts, AXES, "a model", "f" * 64, "stable-diffusion-v1", 7, 40)


def _scene() -> ConceptSet:
    image = torch.rand(3, SIDE, SIDE, generator=_rng())
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[8:24, 8:24] = True
    concepts = (Concept("ball", "ball", mask, 0.9), Concept("cube", "cube", mask.roll(20, 1), 1.0))
    return ConceptSet(image, concepts, ~mask)


def _lora() -> Lora:
    names = [
        f"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn{i}_to_{k}" for i in (1, 2) for k in "qkv"
    ]
    down = {name: torch.randn(2, 8, generator=_rng()) for name in names}
    return Lora(down, {name: torch.randn(8, 2, generator=_rng()) for name in names}, 2.0)


def _bytes(write: Callable[[Path], object], folder: Path, name: str) -> bytes:
    write(folder / name)
    return (folder / name).read_bytes()


def _picture(format: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels = (torch.rand(SIDE, SIDE, 4, generator=_rng()) * 255).byte().numpy()
    Image.fromarray(pixels, "RGBA").convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def _pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _run(folder: Path) -> dict[str, bytes]:
    """The files that an interrupted run is resumed from."""
    run, found, settings = RunFolder(folder), _scene(), ExtractionSettings(TrainingConfig(axes=AXES))
    run.save_start(RunStart("a picture", "2026-01-01", "0", "a model", "f" * 64, asdict(settings)), found)
    generator = torch.Generator().get_state()
    state = TrainingState(
        4, tuple((c.key, c.label) for c in found.concepts), _learned().tokens, {}, generator,
        settings.training, picture_hash(found.image), "a model", "f" * 64, "stable-diffusion-v1",
        {c.key: dict(c.readings) for c in _learned().concepts},
    )  # fmt: skip
    refined = RefinementState(
        2,
        _lora(),
        {},
        torch.zeros(1, 4, 6, 6),
        generator,
        RefinementConfig(steps=8),
        "p",
        "l",
        "a model",
        "f" * 64,
    )
    history = History(({"total": 1.0, "denoising": 0.5},) * 6, {"training": 3.0})
    run.save_progress(refined, history)
    run.save_progress(state, history)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _resume(folder: Path, _: Path) -> object:
    run = RunFolder(folder)
    start, concepts = run.load_start()
    axes_for(False, ExtractionSettings.from_plain(start.settings).training.axes, files=False)
    return concepts, run.load_progress()


def _embedding(_: Path, path: Path) -> object:
    opened = open_concepts(path)
    inspect_path(path)
    convert([path], path.parent / "converted.safetensors")
    return opened


def _set(_: Path, path: Path) -> object:
    saved = load_concept_set(path)
    inspect_path(path)
    convert([path], path.parent / "split")
    return [as_image(data) for data in (saved.sheet, saved.picture) if data]


def _folder(folder: Path, _: Path) -> object:
    learned = load_concepts(folder)
    inspect_path(folder)
    return placeholders(*learned.concepts)


def _lora_read(_: Path, path: Path) -> object:
    lora_header(path)
    inspect_path(path)
    return load_lora(path)


def kinds(scratch: Path) -> dict[str, Kind]:
    """Every kind, by name. scratch: an empty folder, to write samples into."""
    learned, found = _learned(), _scene()
    jpeg = jpeg_bytes(found.image)
    save_concepts(learned, scratch / "folder", "2026-01-01", {"ball.color": as_data_uri(jpeg)})
    embeddings = {path.name: path.read_bytes() for path in sorted((scratch / "folder").iterdir())}
    saved = SavedConcepts(
        learned, found.concepts, found.background, asdict(ExtractionSettings()), "a picture", "2026-01-01",
        thumbnails={"ball": jpeg, "cube.color": jpeg}, sheet=jpeg, picture=jpeg,
    )  # fmt: skip
    rows = torch.randn(2, 768, generator=_rng())
    a1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": rows}, "name": "cat", "step": 500}
    pictures = {
        "a.png": _picture("PNG"), "b.png": _picture("PNG", "RGBA"), "c.png": _picture("PNG", "P"),
        "a.jpg": _picture("JPEG"), "b.jpg": _picture("JPEG", progressive=True), "a.webp": _picture("WEBP"),
        "a.bmp": _picture("BMP"), "a.tif": _picture("TIFF", compression="tiff_lzw"),
        "b.tif": _picture("TIFF"),
    }  # fmt: skip
    masks = {"a.png": _bytes(lambda path: save_png(found.concepts[0].mask, path), scratch, "m.png")}
    masks |= {"b.png": _picture("PNG", "1"), "c.jpg": _picture("JPEG", "L"), "d.png": _picture("PNG", "LA")}
    whole = MODEL_FILE.is_file()
    checkpoint = {"a.safetensors": MODEL_FILE.read_bytes()} if whole else {}
    older = {"a.ckpt": _pickled({"state_dict": load_file(MODEL_FILE)})} if whole else {}
    every = {
        "embedding": Kind({"ball_color.safetensors": embeddings["ball_color.safetensors"]}, _embedding),
        "embedding of others": Kind(
            {"cat.pt": _pickled(a1111), "dog.bin": _pickled({"<dog>": rows[0]})}, _embedding
        ),
        "folder of embeddings": Kind(embeddings, _folder),
        "concept set": Kind(
            {"a.safetensors": _bytes(lambda path: save_concept_set(saved, path), scratch, "set.safetensors")},
            _set,
        ),
        "LoRA": Kind(
            {
                "a.safetensors": _bytes(
                    lambda path: save_lora(_lora(), path, learned), scratch, "lora.safetensors"
                )
            },
            _lora_read,
        ),
        "run folder": Kind(_run(scratch / "run"), _resume),
        "checkpoint": Kind(checkpoint, lambda _, path: load_checkpoint(path)),
        "older checkpoint": Kind(older, lambda _, path: load_checkpoint(path)),
        "picture": Kind(pictures, lambda _, path: load_image_with_notes(path)),
        "mask": Kind(masks, lambda _, path: load_mask(path, (SIDE, SIDE))),
    }
    return {name: kind for name, kind in every.items() if kind.files}
