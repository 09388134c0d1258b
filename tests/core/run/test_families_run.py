"""The whole method on small random models of families with other text encoders than Stable Diffusion 1's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny_families import tiny_family

import ice_core
from ice_core.attributes.axes import parse_axes
from ice_core.concepts import LearnedConcepts
from ice_core.files.embeddings import load_concepts
from ice_core.localization.config import LocalizationConfig
from ice_core.model.sampling import SamplingConfig
from ice_core.run.pipeline import extract, finish
from ice_core.run.settings import ExtractionSettings
from ice_core.standalone import StandaloneBackbone, load_checkpoint
from ice_core.training.config import AnchoredConfig, Method, TrainingConfig

ENCODERS = {"sd2": {"clip_h": 64}, "sd2-v": {"clip_h": 64}, "sdxl": {"clip_l": 64, "clip_g": 128}}
QUICK = AnchoredConfig(batch=1, evaluations=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def opened(name: str, folder: Path) -> StandaloneBackbone:
    path = folder / f"{name}.safetensors"
    return load_checkpoint(path if path.is_file() else tiny_family(name).write(path))


def extracted(backbone: StandaloneBackbone, out: Path, method: Method) -> LearnedConcepts:
    """What was learned of one marked object, read back from its files."""
    image = torch.full((3, 64, 64), 0.5)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[16:48, 16:48] = True
    image[:, mask] = torch.tensor([[0.9], [0.1], [0.1]])
    steps = 0 if method == "words" else 4
    training = TrainingConfig(("color",), steps, alignment_iterations=5, method=method, anchored=QUICK)
    settings = ExtractionSettings(training, LocalizationConfig(), SamplingConfig(steps=1))
    known = {"axes": parse_axes(["color=red|blue"]), "overruled": ["ball.color=red"]}
    finish(extract(backbone, None, image, out, settings, ["ball"], [mask], **known))
    return load_concepts(out)


@pytest.mark.parametrize(
    ("name", "method"),
    [("sd2-v", "anchored"), ("sdxl", "anchored"), ("sdxl", "paper"), ("sdxl", "inversion")],
)
def test_a_picture_is_taken_apart_and_put_together(
    folder: Path, tmp_path: Path, name: str, method: Method
) -> None:
    backbone = opened(name, folder)
    learned = extracted(backbone, tmp_path / "out", method)
    assert learned.architecture == backbone.architecture
    for token in learned.tokens.values():
        assert {encoder: rows.shape[1] for encoder, rows in token.rows.items()} == ENCODERS[name]
    start = {encoder: rows.mean(0, keepdim=True) for encoder, rows in backbone.word_rows("ball").items()}
    for encoder, rows in learned.concepts[0].object.rows.items():
        assert (rows - start[encoder]).abs().max() > 0, encoder
        if method == "anchored":
            torch.testing.assert_close(rows.norm(dim=-1), start[encoder].norm(dim=-1))
    prompt = "a photo of a {ball.object}" if method == "inversion" else "a {ball.color} {ball.object}"
    (picture,) = ice_core.compose(backbone, prompt, learned, settings=SamplingConfig(steps=1))
    assert picture.size == (64, 64)


def test_files_of_two_encoders_hold_both_and_fit_no_other_family(folder: Path, tmp_path: Path) -> None:
    learned = extracted(opened("sdxl", folder), tmp_path / "out", "words")
    with safe_open(tmp_path / "out" / "embeddings" / "ball_color.safetensors", "pt") as file:
        assert set(file.keys()) == {"clip_l", "clip_g"}
        header = file.metadata()
    assert header["modelspec.architecture"] == "stable-diffusion-xl-v1-base/textual-inversion"
    with pytest.raises(
        ice_core.IceError, match=r"stable-diffusion-xl.*clip_l x 64\), but sd2 is .* \(clip_h x 64\); load"
    ):
        ice_core.compose(opened("sd2", folder), "a {ball}", learned)
