"""Both Backbones on the bundled model: the same questions, the same answers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from backbone_questions import ask
from torch import Tensor

from ice_core.world.architecture import LATENT_CHANNELS
from ice_core.world.bundled import load_bundled_backbone
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene
from tools.comfy_host import PACK, Host

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rendered = render([sample_scene(3, count=1)])
    noise = torch.randn(2, LATENT_CHANNELS, 16, 16, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("contract") / "questions.pt"
    torch.save({"picture": rendered.images[0], "mask": rendered.masks[0, 0], "noise": noise}, path)
    return path


@pytest.fixture(scope="module")
def expected(questions: Path) -> dict[str, Tensor]:
    return ask(load_bundled_backbone(), torch.load(questions, weights_only=True))


def probe(host: Host, questions: Path, *options: str) -> dict[str, Tensor]:
    path = questions.with_name("-".join(("answers", host.version, *options)) + ".pt")
    script = Path(__file__).with_name("backbone_probe.py")
    command = [host.python, script, host.path, PACK, questions, path, *options]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def answers(host: Host, questions: Path) -> dict[str, Tensor]:
    return probe(host, questions)


def test_every_answer_agrees(answers: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    of_host = {name for name in answers if name.startswith("earlier layer/")}
    of_host |= {"unchanged", "hooks", "offloaded", "overridden", "passes", "room"}
    assert answers.keys() - of_host == expected.keys()
    assert differences(answers, expected) == {}


def differences(answers: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Where the answers are too far apart, and how far."""
    apart = {k: (answers[k] - expected[k]).abs().max().item() for k in expected}
    return {k: v for k, v in apart.items() if not v < TOLERANCE}


def test_free_memory_holds_a_few_copies_and_not_millions(answers: dict[str, Tensor]) -> None:
    assert answers["room"].tolist() == [True, True, False]


def test_training_moved_the_tokens(answers: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Otherwise that both learn the same would say nothing."""
    color, material = (answers[f"learned/ball.{axis}/clip_l"] for axis in ("color", "material"))
    assert (color - material).abs().max() > 0.1 * TOLERANCE
    assert answers["gradient/clip_l"].abs().max() > 0


def test_a_lora_changes_the_answer(answers: dict[str, Tensor]) -> None:
    assert (answers["adapted"] - answers["predicted"]).abs().max() > TOLERANCE


def test_recording_changes_nothing(answers: dict[str, Tensor]) -> None:
    assert torch.equal(answers["predicted"], answers["unrecorded"])


def test_an_attention_override_on_the_wire_stays(answers: dict[str, Tensor]) -> None:
    plain, recording = answers["overridden"].tolist()
    assert plain == recording > 0


@pytest.mark.parametrize("layer", ["", "earlier layer/"], ids=["last layer", "earlier layer"])
def test_what_is_encoded_without_its_padding_is_the_same(answers: dict[str, Tensor], layer: str) -> None:
    for contexts in (2, 1, 0):
        key, full = f"{layer}padding/{contexts}", f"{layer}padding/all"
        assert int(answers[f"{key}/contexts"]) == contexts
        for name in ("pooled", "gradient", *(["context"] if contexts else [])):
            torch.testing.assert_close(answers[f"{key}/{name}"], answers[f"{full}/{name}"])
    assert answers["padding/all/gradient"].abs().max() > 0
    assert not torch.allclose(answers["padding/all/pooled"], answers["earlier layer/padding/all/pooled"])


def test_the_hosts_model_is_bit_identical_afterwards(answers: dict[str, Tensor]) -> None:
    assert bool(answers["unchanged"])
    assert int(answers["hooks"]) == 0


@pytest.mark.parametrize(
    "options",
    [("--fp16-unet", "--fp16-text-enc"), ("--fp8_e4m3fn-unet", "--fp8_e4m3fn-text-enc")],
    ids=["half", "fp8"],
)
def test_weights_of_less_precision_can_be_learned_on(
    host: Host, questions: Path, expected: dict[str, Tensor], options: tuple[str, ...]
) -> None:
    answers = probe(host, questions, *options)
    assert bool(answers["unchanged"])
    assert all(value.isfinite().all() for value in answers.values())
    similar = torch.cosine_similarity(answers["predicted"].flatten(), expected["predicted"].flatten(), 0)
    assert similar > 0.97
    for name in expected:
        if name.startswith("learned/"):
            assert answers[name].norm() > 0


def test_weights_that_are_moved_at_use_give_the_same_answers(
    host: Host, questions: Path, expected: dict[str, Tensor]
) -> None:
    answers = probe(host, questions, "--offloaded")
    assert int(answers["offloaded"]) > 50
    assert bool(answers["unchanged"])
    assert differences(answers, expected) == {}


def test_checkpointing_gives_the_same_answers_and_works_twice(
    host: Host, questions: Path, answers: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    again = probe(host, questions, "--recomputed")
    assert differences(again, expected) == {}
    assert (int(answers["passes"]), int(again["passes"])) == (1, 2)
    assert again["overridden"].tolist() == answers["overridden"].tolist()
    assert bool(again["unchanged"])
    assert int(again["hooks"]) == 0
