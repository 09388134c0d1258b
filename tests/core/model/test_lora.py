"""LoRAs on the standalone backbone: they change what they should, for one call, and gradients reach them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from fakes import FakeBackbone
from loras import TIMES, predict, random_lora
from tiny_checkpoint import tiny
from torch import Tensor

from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt
from ice_core.model.lora import Lora, kohya_name
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.standalone import StandaloneBackbone, load_checkpoint


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> StandaloneBackbone:
    return load_checkpoint(tiny(like_sd1=False).write(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


def hooks(backbone: StandaloneBackbone) -> int:
    return sum(len(module._forward_hooks) for module in backbone.unet.modules())


def test_every_attention_has_four_targets_of_the_layers_widths(backbone: StandaloneBackbone) -> None:
    layers = dict(backbone.unet.named_modules())
    expected = {
        kohya_name(f"{name}.{projection}"): layers[f"{name}.{projection}"]
        for name in layers
        if name.endswith((".attn1", ".attn2"))
        for projection in ("to_q", "to_k", "to_v", "to_out.0")
    }
    targets = backbone.lora_targets
    assert targets.keys() == expected.keys()
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_out_0" in targets
    for name, target in targets.items():
        assert target.name == name
        assert (target.outputs, target.inputs) == tuple(expected[name].weight.shape)


def test_an_initial_lora_changes_nothing_and_depends_on_the_seed_alone(backbone: StandaloneBackbone) -> None:
    one, again, other = (
        Lora.initial(backbone.lora_targets, 4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert all(torch.equal(one.down[k], again.down[k]) for k in one.down)
    assert not all(torch.equal(one.down[k], other.down[k]) for k in one.down)
    assert (one.rank, one.alpha, one.scale(next(iter(one.down)))) == (4, 4.0, 1.0)
    assert not any(up.any() for up in one.up.values())
    assert torch.equal(predict(backbone, None), predict(backbone, one))


def test_the_term_equals_merged_weights_and_leaves_no_trace(backbone: StandaloneBackbone) -> None:
    plain, lora = predict(backbone, None), random_lora(backbone)
    adapted = predict(backbone, lora)
    assert (adapted - plain).abs().max() > 1e-2
    assert hooks(backbone) == 0
    assert torch.equal(plain, predict(backbone, None))
    layers = {kohya_name(n): m for n, m in backbone.unet.named_modules()}
    before = {name: layers[name].weight.clone() for name in lora.down}
    try:
        for name in lora.down:
            layers[name].weight += lora.scale(name) * lora.up[name] @ lora.down[name]
        torch.testing.assert_close(predict(backbone, None), adapted, atol=1e-4, rtol=1e-4)
    finally:
        for name, weight in before.items():
            layers[name].weight.copy_(weight)


def test_recording_sees_the_adapted_attention_and_changes_nothing(backbone: StandaloneBackbone) -> None:
    lora, plain, adapted = random_lora(backbone), AttentionRecorder(["cross"]), AttentionRecorder(["cross"])
    predict(backbone, None, plain)
    assert torch.equal(predict(backbone, lora), predict(backbone, lora, adapted))
    maps = [next(iter(recorder.recorded("cross").values())) for recorder in (plain, adapted)]
    assert not torch.allclose(*maps)


def test_gradients_reach_every_matrix_and_no_weight(backbone: StandaloneBackbone) -> None:
    lora = random_lora(backbone)
    for matrix in (*lora.down.values(), *lora.up.values()):
        matrix.requires_grad_()
    predict(backbone, lora).square().sum().backward()
    for matrix in (*lora.down.values(), *lora.up.values()):
        assert matrix.grad is not None
        assert matrix.grad.abs().sum() > 0
    assert not any(p.requires_grad or p.grad is not None for p in backbone.unet.parameters())


def test_an_error_inside_the_model_leaves_no_trace(
    backbone: StandaloneBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = predict(backbone, None)
    with monkeypatch.context() as patch:
        patch.setattr(backbone.unet.conv_out, "forward", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(backbone, random_lora(backbone))
    assert hooks(backbone) == 0
    assert torch.equal(plain, predict(backbone, None))


def test_pictures_are_drawn_with_the_lora() -> None:
    backbone, config = FakeBackbone(), SamplingConfig(steps=3)

    def drawn(lora: Lora | None) -> Tensor:
        return sample(backbone, [Prompt(("ball",))], config, torch.Generator().manual_seed(0), lora=lora)

    initial = Lora.initial(backbone.lora_targets, 2, torch.Generator().manual_seed(0))
    assert torch.equal(drawn(None), drawn(initial))
    assert not torch.equal(drawn(None), drawn(random_lora(backbone)))


def test_a_lora_of_another_model_is_refused(backbone: StandaloneBackbone) -> None:
    lora = random_lora(backbone)
    with pytest.raises(IceError, match=r"attn1_to_k, which fake does not have.*it was made for"):
        FakeBackbone().predict(
            torch.zeros(1, 4, 8, 8), TIMES[:1], FakeBackbone().encode_prompts([Prompt(("a",))]), lora=lora
        )
    name = next(n for n in lora.down if n.endswith("attn2_to_k"))
    wide = dataclasses.replace(lora, down={**lora.down, name: torch.zeros(3, 768)})
    with pytest.raises(IceError, match=rf"{name} goes from 768 to \d+ numbers, that of tiny from 64 to"):
        predict(backbone, wide)


@pytest.mark.parametrize(
    ("down", "up", "message"),
    [
        ({}, {}, "adapts no layer"),
        ({"a": torch.zeros(2, 3)}, {}, "only one of its two matrices for a"),
        ({"a": torch.zeros(2, 3)}, {"a": torch.zeros(3, 4)}, r"\(2, 3\) and \(3, 4\)"),
        ({"a": torch.zeros(2, 3, 1, 1)}, {"a": torch.zeros(3, 2)}, "rank x inputs"),
    ],
)
def test_matrices_that_do_not_belong_together_are_refused(
    down: dict[str, Tensor], up: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(IceError, match=message):
        Lora(down, up, 1.0)


def test_a_file_of_a_model_in_half_precision_takes_it_too(tmp_path: Path) -> None:
    backbone = load_checkpoint(tiny(like_sd1=False).write(tmp_path / "tiny.safetensors"))
    backbone.unet.to(torch.bfloat16)
    backbone.text.module.to(torch.bfloat16)
    adapted = predict(backbone, random_lora(backbone))
    assert adapted.dtype == torch.bfloat16
    assert not torch.equal(adapted, predict(backbone, None))
