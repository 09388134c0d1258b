"""Precision and memory: weights in half precision, learned rows in float32, activations computed twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loras import random_lora
from tiny_checkpoint import tiny
from training_runs import scene

from ice_core.api import load_model
from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt, Token
from ice_core.standalone import StandaloneBackbone, load_checkpoint
from ice_core.standalone.devices import dtype_named
from ice_core.training import Finished, TrainingConfig, train


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(like_sd1=False).write(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def test_auto_is_float32_on_the_cpu_and_names_are_checked() -> None:
    cpu = torch.device("cpu")
    assert dtype_named("auto", cpu) == torch.float32
    assert dtype_named("bfloat16", cpu) == torch.bfloat16
    assert dtype_named(torch.float16, cpu) == torch.float16
    with pytest.raises(IceError, match=r"no precision 'half'.*bfloat16"):
        dtype_named("half", cpu)


def test_a_model_in_bfloat16_learns_rows_in_float32(path: Path) -> None:
    model = load_model(path, "cpu", "bfloat16")
    assert isinstance(model, StandaloneBackbone)
    assert {p.dtype for m in (model.unet, model.vae) for p in m.parameters()} == {torch.bfloat16}
    config = TrainingConfig(("color", "material"), steps=4, alignment_iterations=5, method="paper")
    *_, last = train(model, scene("ball", "cube"), config)
    assert isinstance(last, Finished)
    assert last.learned.tokens
    for token in last.learned.tokens.values():
        for rows in token.rows.values():
            assert rows.dtype == torch.float32
            assert rows.isfinite().all()
            assert not torch.equal(rows, rows.bfloat16().float())
    assert {moment.dtype for moment in last.state.moments.values()} == {torch.float32}


@pytest.mark.parametrize("with_lora", [False, True])
def test_checkpointing_gives_the_same_gradients_and_attention(path: Path, with_lora: bool) -> None:
    plain, twice = load_checkpoint(path), load_checkpoint(path)
    twice.checkpoint_gradients()
    runs = []
    for model in (plain, twice):
        rows = {k: v.clone().requires_grad_() for k, v in model.word_rows("ball").items()}
        lora = random_lora(model) if with_lora else None
        learned = list(rows.values())
        if lora is not None:
            learned += [t.requires_grad_() for t in lora.up.values()]
        text = model.encode_prompts([Prompt(("a photo of a", Token("t", rows)))])
        noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        recorder = AttentionRecorder(["cross"])
        out = model.predict(noisy, torch.tensor([10, 500]), text, recorder, lora)
        attention = sum(maps[..., 5].square().sum() for maps in recorder.recorded("cross").values())
        (out.square().mean() + attention).backward()
        runs.append((out.detach(), [t.grad for t in learned]))
    torch.testing.assert_close(runs[1][0], runs[0][0])
    assert all(g is not None and g.abs().sum() > 0 for g in runs[0][1][:1])
    for ours, theirs in zip(runs[1][1], runs[0][1], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_checkpointing_computes_the_blocks_a_second_time(path: Path) -> None:
    model = load_model(path, "cpu", gradient_checkpointing=True)
    assert isinstance(model, StandaloneBackbone)
    calls: list[str] = []
    for name, module in model.unet.named_modules():
        if name.endswith("transformer_blocks.0"):
            module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    rows = {k: v.clone().requires_grad_() for k, v in model.word_rows("ball").items()}
    text = model.encode_prompts([Prompt((Token("t", rows),))])
    out = model.predict(torch.randn(1, 4, 8, 8), torch.tensor([10]), text)
    once = len(calls)
    out.mean().backward()
    assert len(calls) == 2 * once > 0
