"""LoRA files: what is saved is what others load, and what cannot be used is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from fakes import FakeBackbone
from loras import predict, random_lora
from safetensors.torch import load_file, save_file
from tiny_checkpoint import tiny
from torch import Tensor

from ice_core.concepts import LearnedConcept, LearnedConcepts
from ice_core.errors import IceError
from ice_core.files.lora import load_lora, lora_from_state_dict, lora_header, lora_state_dict, save_lora
from ice_core.model.backbone import Token
from ice_core.model.lora import Lora
from ice_core.standalone import StandaloneBackbone, load_checkpoint


def learned() -> LearnedConcepts:
    def token(name: str) -> Token:
        return Token(name, {"clip_l": torch.zeros(1, 16)})

    ball = LearnedConcept(
        "ball", "ball", token("ball.instance"), token("ball.object"), {"color": token("ball.color")}
    )
    return LearnedConcepts((ball,), ("color",), "base", "f" * 64, "stable-diffusion-v1", 7, 100)


@pytest.fixture(scope="module", params=[False, True], ids=["bundled-like", "sd1-like"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StandaloneBackbone:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    return load_checkpoint(tiny(request.param).write(path))


def same(one: Lora, other: Lora) -> bool:
    return one.down.keys() == other.down.keys() and all(
        torch.equal(one.scale(k) * one.up[k] @ one.down[k], other.scale(k) * other.up[k] @ other.down[k])
        for k in one.down
    )


def test_diffusers_reads_the_file_to_the_same_output(backbone: StandaloneBackbone, tmp_path: Path) -> None:
    """By what `load_lora_weights` calls before peft; the low-rank terms are merged as peft would add them."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    lora = random_lora(backbone)
    path = save_lora(lora, tmp_path / "lora.safetensors", learned())
    read, read_alphas = StableDiffusionPipeline.lora_state_dict(str(path), unet_config=backbone.unet.config)
    state, alphas = (convert_unet_state_dict_to_peft(x) for x in (read, read_alphas))
    names = [key.removesuffix(".lora_A.weight") for key in state if key.endswith(".lora_A.weight")]
    assert len(names) == len(lora.down) == len(state) / 2 == len(alphas)
    unet = copy.deepcopy(backbone.unet)
    layers = dict(unet.named_modules())
    for name in names:
        down, up = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]
        scale = alphas[f"{name}.lora_A.weight.alpha"] / len(down)
        layers[name.removeprefix("unet.")].weight += scale * up @ down
    adapted = predict(backbone, lora)
    original, backbone.unet = backbone.unet, unet
    try:
        theirs = predict(backbone, None)
    finally:
        backbone.unet = original
    assert (adapted - predict(backbone, None)).abs().max() > 1e-2
    torch.testing.assert_close(theirs, adapted, atol=1e-4, rtol=1e-4)


def test_a_saved_lora_is_read_back_to_the_bit(tmp_path: Path) -> None:
    lora = random_lora(FakeBackbone())
    path = save_lora(lora, tmp_path / "new" / "lora.safetensors", learned())
    again = load_lora(path)
    assert again.alpha == lora.alpha
    assert again.down.keys() == lora.down.keys()
    for name in lora.down:
        assert torch.equal(again.down[name], lora.down[name])
        assert torch.equal(again.up[name], lora.up[name])
    from_state = save_lora(lora_state_dict(lora), tmp_path / "lora.safetensors", learned())
    one, other = load_file(path), load_file(from_state)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert lora_header(path) == lora_header(from_state)


def test_the_names_and_shapes_are_those_of_kohya() -> None:
    lora = random_lora(FakeBackbone(), rank=3, alpha=1.5)
    state = lora_state_dict(lora)
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0"
    assert state[f"{name}.lora_down.weight"].shape == (3, 16)
    assert state[f"{name}.lora_up.weight"].shape == (4, 3)
    assert state[f"{name}.alpha"] == 1.5
    assert len(state) == 3 * 4


def test_the_header_says_what_it_is_and_what_made_it(tmp_path: Path) -> None:
    lora = random_lora(FakeBackbone())
    extra = {"ice.refinement_steps": "30"}
    path = save_lora(
        lora, tmp_path / "vase.safetensors", learned(), date="2026-01-01", thumbnail="data:,", extra=extra
    )
    header = lora_header(path)
    assert header["modelspec.sai_model_spec"] == "1.0.0"
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["modelspec.title"] == "vase"
    assert header["modelspec.date"] == "2026-01-01"
    assert header["modelspec.thumbnail"] == "data:,"
    assert header["modelspec.trigger_phrase"] == "embedding:ball_color embedding:ball_object"
    assert "ball" in header["modelspec.description"]
    assert header["ice.base_fingerprint"] == "f" * 64
    assert (header["ice.seed"], header["ice.steps"], header["ice.refinement_steps"]) == ("7", "100", "30")
    # A folder of embeddings must not take it for one of its tokens.
    assert "ice.key" not in header


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    lora, target = random_lora(FakeBackbone()), tmp_path / "lora.safetensors"
    first = save_lora(lora, target, learned())
    before = first.read_bytes()
    second = save_lora(lora, target, learned(), date="2025")
    assert second.name == "lora-2.safetensors"
    assert first.read_bytes() == before
    assert save_lora(lora, target, learned(), date="2026", replace=True) == first
    assert lora_header(first)["modelspec.date"] == "2026"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lora-2.safetensors", "lora.safetensors"]


def test_alphas_and_ranks_that_differ_by_layer_keep_their_effect() -> None:
    rng = torch.Generator().manual_seed(0)

    def matrices(rank: int) -> tuple[Tensor, Tensor]:
        return torch.randn(rank, 6, generator=rng), torch.randn(5, rank, generator=rng)

    state: dict[str, Tensor] = {}
    for name, rank, alpha in (("a", 2, 1.0), ("b", 4, 8.0), ("c", 3, None)):
        state[f"lora_unet_{name}.lora_down.weight"], state[f"lora_unet_{name}.lora_up.weight"] = matrices(
            rank
        )
        if alpha is not None:
            state[f"lora_unet_{name}.alpha"] = torch.tensor(alpha)
    lora = lora_from_state_dict(state)
    for name, scale in (("lora_unet_a", 0.5), ("lora_unet_b", 2.0), ("lora_unet_c", 1.0)):
        expected = scale * state[f"{name}.lora_up.weight"] @ state[f"{name}.lora_down.weight"]
        torch.testing.assert_close(lora.scale(name) * lora.up[name] @ lora.down[name], expected)
    assert lora.rank == 4
    assert same(lora, lora_from_state_dict(lora_state_dict(lora)))


def test_half_precision_files_are_read_as_float32(tmp_path: Path) -> None:
    lora = random_lora(FakeBackbone())
    save_file({k: v.half() for k, v in lora_state_dict(lora).items()}, tmp_path / "half.safetensors")
    assert {v.dtype for v in load_lora(tmp_path / "half.safetensors").down.values()} == {torch.float32}
    assert lora_header(tmp_path / "half.safetensors") == {}


def test_what_cannot_be_used_is_refused_with_what_was_found(tmp_path: Path) -> None:
    good = lora_state_dict(random_lora(FakeBackbone()))
    name = next(iter(good)).split(".")[0]
    zeros = torch.zeros(2, 2)
    for content, message in (
        ({**good, "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha": zeros}, "'lora_te_text"),
        ({**good, f"{name}.hada_w1_a": zeros}, "hada_w1_a"),
        ({"emb_params": zeros}, "'emb_params'; only LoRAs of the U-Net"),
        ({k: v for k, v in good.items() if k != f"{name}.lora_up.weight"}, f"two matrices for {name}"),
        ({**good, f"{name}.lora_up.weight": torch.full((4, 3), torch.nan)}, "not numbers"),
        ({**good, f"{name}.alpha": zeros}, r"shape \(2, 2\)"),
        ({**good, f"{name}.alpha": torch.tensor(torch.nan)}, "alpha' of nan"),
        ({**good, f"{name}.alpha": torch.tensor(-torch.inf)}, "alpha' of -inf"),
        ({**good, f"{name}.lora_up.weight": torch.tensor(1.0)}, r"shape \(\); it must be a matrix"),
        ({f"{name}.alpha": torch.tensor(1.0)}, "adapts no layer"),
    ):
        save_file(content, tmp_path / "bad.safetensors")
        with pytest.raises(IceError, match=message):
            load_lora(tmp_path / "bad.safetensors")
    with pytest.raises(IceError, match="no LoRA file"):
        load_lora(tmp_path / "absent.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "bad.safetensors").read_bytes()[:20])
    with pytest.raises(IceError, match="cannot read"):
        load_lora(tmp_path / "cut.safetensors")
