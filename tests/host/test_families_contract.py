"""Every family on a small random model: both Backbones give the same answers, and the host's own readers make
of our files what they were written from."""

from __future__ import annotations

import dataclasses
import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch
from backbone_questions import ask
from loras import random_lora
from tiny_families import FAMILIES, tiny_family
from tokens import learned
from torch import Tensor

from ice_core.files.embeddings import save_token
from ice_core.files.lora import load_lora, save_lora
from ice_core.model.backbone import Prompt, Token
from ice_core.standalone import StandaloneBackbone, load_checkpoint
from tools.comfy_host import PACK, Host

TOLERANCE, TEXT_TOLERANCE = 1e-3, 1e-4
STEPS = 20


@pytest.fixture(scope="module")
def folder(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the probe is asked, and its answers.

    The question has one answer: noise of 3e-6 in every prediction moves no learned number by more than 1e-5.
    Of other random pictures (seeds 0 and 3, `sd2-v`) noise of 1e-6 moves some by 2e-3, for it turns signs of
    gradients that are nearly zero, which Adam's first steps follow.
    """
    folder = tmp_path_factory.mktemp(f"families-{host.version}")
    rng = torch.Generator().manual_seed(2)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[16:48, 8:48] = True
    questions = {
        "picture": torch.rand(3, 64, 64, generator=rng),
        "mask": mask,
        "noise": torch.randn(2, 4, 8, 8, generator=rng),
        "steps": torch.tensor(STEPS),
    }
    torch.save(questions, folder / "questions.pt")
    for name in FAMILIES:
        backbone = load_checkpoint(tiny_family(name).write(folder / f"{name}.safetensors"))
        rows = {encoder: torch.randn(2, width, generator=rng) for encoder, width in backbone.encoders.items()}
        files = folder / name
        save_token(Token("ball", rows), files / "embeddings" / "ball.safetensors", backbone.architecture, "")
        torch.save(rows, files / "token.pt")
        lora = random_lora(backbone, text=True)
        lora = dataclasses.replace(lora, up={key: 0.3 * value for key, value in lora.up.items()})
        save_lora(lora, files / "lora.safetensors", learned())
    script = Path(__file__).with_name("families_probe.py")
    command = [str(part) for part in (host.python, script, host.path, PACK, folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def answers(folder: Path, name: str) -> dict[str, Tensor]:
    return torch.load(folder / f"answers-{name}.pt", weights_only=True)


@pytest.fixture(scope="module")
def backbone(folder: Path, name: str) -> StandaloneBackbone:
    return load_checkpoint(folder / f"{name}.safetensors")


@cache
def expected(name: str, checkpoint: Path, questions: Path) -> dict[str, Tensor]:
    """Our answers, on one thread like the host's: Adam's first step is a gradient's sign, and how threads
    share a sum decides the sign of one that is nearly zero (2e-3 of a row's number after 20 steps)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return ask(load_checkpoint(checkpoint), torch.load(questions, weights_only=True))
    finally:
        torch.set_num_threads(threads)


def test_both_backbones_give_the_same_answers(folder: Path, name: str, answers: dict[str, Tensor]) -> None:
    """Latents, text features, prediction, attention, and the tokens after 20 steps of two methods."""
    wanted = expected(name, folder / f"{name}.safetensors", folder / "questions.pt")
    assert wanted.keys() == {key for key in answers if not key.startswith(("host/", "ours/"))}
    apart = {key: (answers[key] - value).abs().max().item() for key, value in wanted.items()}
    assert {key: value for key, value in apart.items() if not value < TOLERANCE} == {}
    encoders = [key for key in wanted if key.startswith("gradient/")]
    assert len(encoders) == (2 if name.startswith("sdxl") else 1)
    for key in encoders:
        assert answers[key].abs().max() > 0, key


def test_the_hosts_embedding_is_our_token(
    folder: Path, name: str, answers: dict[str, Tensor], backbone: StandaloneBackbone
) -> None:
    token = Token("ball", torch.load(folder / name / "token.pt", weights_only=True))
    with torch.no_grad():
        text = backbone.encode_prompts([Prompt(("a photo of", token, "on sand"))])
    for key, value in (("context", text.context), ("pooled", text.pooled)):
        torch.testing.assert_close(answers[f"host/{key}"], answers[f"ours/{key}"], atol=1e-6, rtol=0)
        torch.testing.assert_close(answers[f"host/{key}"], value, atol=TEXT_TOLERANCE, rtol=0)


def test_load_lora_adapts_the_model_as_we_do(
    folder: Path, name: str, answers: dict[str, Tensor], backbone: StandaloneBackbone
) -> None:
    lora = load_lora(folder / name / "lora.safetensors")
    questions = torch.load(folder / "questions.pt", weights_only=True)
    text = backbone.encode_prompts([Prompt(("a ball",))])
    with torch.no_grad():
        value = backbone.predict(questions["noise"], torch.tensor([20, 700]), text, lora=lora)
    torch.testing.assert_close(answers["host/adapted"], answers["ours/adapted"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(answers["host/adapted"], value, atol=TOLERANCE, rtol=0)
    assert (answers["host/adapted"] - answers["host/plain"]).abs().max() > 10 * TOLERANCE


def test_load_lora_adapts_the_text_encoders_as_we_do(
    folder: Path, name: str, answers: dict[str, Tensor], backbone: StandaloneBackbone
) -> None:
    lora = load_lora(folder / name / "lora.safetensors")
    with torch.no_grad():
        text = backbone.encode_prompts([Prompt(("a ball",))], lora=lora)
    for key, value in (("context", text.context), ("pooled", text.pooled)):
        host, ours = (answers[f"{of}/adapted {key}"] for of in ("host", "ours"))
        torch.testing.assert_close(host, ours, atol=TEXT_TOLERANCE, rtol=0)
        torch.testing.assert_close(host, value, atol=TEXT_TOLERANCE, rtol=0)
    assert (answers["host/adapted context"] - answers["host/plain context"]).abs().max() > 1e-2
