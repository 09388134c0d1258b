from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pytest
import torch
from tiny_checkpoint import tiny
from torch import Tensor

from ice_core.model.attention import AttentionRecorder, Kind
from ice_core.model.backbone import Prompt, Token
from ice_core.standalone import StandaloneBackbone, load_checkpoint


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> StandaloneBackbone:
    return load_checkpoint(tiny(like_sd1=False).write(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture
def noisy() -> Tensor:
    return torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(1))


TIMES = torch.tensor([150, 700])
TEXT = (Prompt(("a red ball",)), Prompt(("a photo of the cube on sand",)))


def explicit(backbone: StandaloneBackbone, noisy: Tensor) -> Iterator[tuple[str, tuple[int, int], Tensor]]:
    """(kind, size, map [B, Q, K]) of every layer, from its projections, written out."""
    seen: dict[str, dict[str, Tensor]] = defaultdict(dict)
    hooks = [
        module.register_forward_hook(
            lambda m, a, out, name=name: seen[name.rpartition(".")[0]].update({name[-1]: out})
        )
        for name, module in backbone.unet.named_modules()
        if name.endswith(("to_q", "to_k"))
    ]
    backbone.predict(noisy, TIMES, backbone.encode_prompts(TEXT))
    for hook in hooks:
        hook.remove()
    height, width = noisy.shape[-2:]
    for name, tensors in seen.items():
        heads = backbone.unet.get_submodule(name).heads
        batch, queries, channels = tensors["q"].shape
        q, k = (tensors[n].view(batch, -1, heads, channels // heads) for n in "qk")
        logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / (channels // heads) ** 0.5
        shrink = {height * width: 1, height * width // 4: 2}[queries]
        kind = "self" if name.endswith("attn1") else "cross"
        yield kind, (height // shrink, width // shrink), logits.softmax(-1).mean(1)


def test_heads_one_by_one_have_the_mean_that_is_recorded(backbone: StandaloneBackbone, noisy: Tensor) -> None:
    recorder = AttentionRecorder()
    backbone.predict(noisy, TIMES, backbone.encode_prompts(TEXT), recorder)
    kinds: tuple[Kind, ...] = ("self", "cross")
    for kind in kinds:
        recorded = recorder.recorded(kind)
        assert set(recorder.recorded_sizes(kind)) == set(recorded)
        for size, mean in recorded.items():
            heads = list(recorder.by_head(kind, size))
            assert len(heads) > 1
            torch.testing.assert_close(torch.stack(heads).mean(0), mean)
    assert list(recorder.by_head("self", (1, 1))) == []


def test_recorded_maps_are_the_explicit_softmax_averaged_over_heads_and_layers(
    backbone: StandaloneBackbone, noisy: Tensor
) -> None:
    recorder = AttentionRecorder()
    backbone.predict(noisy, TIMES, backbone.encode_prompts(TEXT), recorder)
    layers: dict[tuple[str, tuple[int, int]], list[Tensor]] = defaultdict(list)
    for kind, size, weights in explicit(backbone, noisy):
        layers[kind, size].append(weights)
    assert {k: len(v) for k, v in layers.items()} == {
        ("self", (4, 6)): 3,
        ("cross", (4, 6)): 3,
        ("self", (2, 3)): 4,
        ("cross", (2, 3)): 4,
    }
    for (kind, size), maps in layers.items():
        recorded = recorder.recorded(kind)[size]
        torch.testing.assert_close(recorded, torch.stack(maps).mean(0), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(recorded.sum(-1), torch.ones(recorded.shape[:2]))


def test_recording_changes_nothing(backbone: StandaloneBackbone, noisy: Tensor) -> None:
    text = backbone.encode_prompts(TEXT)
    plain = backbone.predict(noisy, TIMES, text)
    assert torch.equal(plain, backbone.predict(noisy, TIMES, text, AttentionRecorder()))
    assert torch.equal(plain, backbone.predict(noisy, TIMES, text))


def test_maps_are_row_major_in_the_activation(backbone: StandaloneBackbone, noisy: Tensor) -> None:
    tall, wide = AttentionRecorder(), AttentionRecorder()
    text = backbone.encode_prompts(TEXT)
    backbone.predict(noisy, TIMES, text, wide)
    backbone.predict(noisy.transpose(2, 3), TIMES, text, tall)
    assert set(wide.recorded("self")) == {(4, 6), (2, 3)}
    assert set(tall.recorded("self")) == {(6, 4), (3, 2)}


def test_sides_that_do_not_halve_evenly_keep_their_true_size(backbone: StandaloneBackbone) -> None:
    recorder = AttentionRecorder(kinds=("cross",))
    backbone.predict(torch.zeros(1, 4, 5, 7), TIMES[:1], backbone.encode_prompts(TEXT[:1]), recorder)
    maps = recorder.recorded("cross")
    assert {size: m.shape[1] for size, m in maps.items()} == {(5, 7): 35, (3, 4): 12}


def test_only_wanted_kinds_sizes_and_columns_are_kept(backbone: StandaloneBackbone, noisy: Tensor) -> None:
    text = backbone.encode_prompts(TEXT)
    everything = AttentionRecorder()
    some = AttentionRecorder(kinds=("cross",), sizes=[(2, 3)], columns=torch.tensor([3, 1]))
    backbone.predict(noisy, TIMES, text, everything)
    backbone.predict(noisy, TIMES, text, some)
    assert some.recorded("self") == {}
    assert list(some.recorded("cross")) == [(2, 3)]
    full = everything.recorded("cross")[2, 3]
    torch.testing.assert_close(some.recorded("cross")[2, 3], full[:, :, [3, 1]])


def test_gradients_reach_a_token_through_recorded_maps(backbone: StandaloneBackbone, noisy: Tensor) -> None:
    rows = backbone.word_rows("ball")["clip_l"].clone().requires_grad_()
    prompt = Prompt(("a photo of", Token("it", {"clip_l": rows})))
    text = backbone.encode_prompts([prompt])
    recorder = AttentionRecorder(kinds=("cross",), columns=torch.tensor(text.columns[0][1]))
    backbone.predict(noisy, TIMES, text, recorder)
    recorder.recorded("cross")[4, 6].square().sum().backward()
    assert rows.grad is not None
    assert rows.grad.abs().sum() > 0


def test_one_prompt_serves_a_whole_batch(backbone: StandaloneBackbone, noisy: Tensor) -> None:
    text = backbone.encode_prompts(TEXT[:1])
    one, each = AttentionRecorder(kinds=("cross",)), AttentionRecorder(kinds=("cross",))
    shared = backbone.predict(noisy, TIMES, text, one)
    torch.testing.assert_close(shared, backbone.predict(noisy, TIMES, text.repeat(2), each))
    assert one.recorded("cross")[4, 6].shape == (2, 24, 77)


def test_gradients_that_round_to_nothing_are_nothing() -> None:
    query, key = torch.ones(1, 1, 1, 1), torch.tensor([0.0, 0.5, -80.0]).view(1, 1, 3, 1)
    kept = [x.clone().requires_grad_() for x in (query, key)]
    recorder = AttentionRecorder()
    recorder.record("cross", (1, 1), *kept, scale=1.0)
    weights = 1e-5 * torch.tensor([1.0, 2.0, 3.0])
    found = torch.autograd.grad((weights * recorder.recorded("cross")[1, 1]).sum(), kept)
    exact = [x.double().requires_grad_() for x in (query, key)]
    maps = (exact[0] @ exact[1].transpose(-1, -2)).softmax(-1)
    expected = torch.autograd.grad((weights * maps).sum(), exact)
    assert 0 < expected[1].flatten()[2] < torch.finfo(torch.float32).tiny
    assert found[1].flatten()[2] == 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-20, rtol=1e-5)


@pytest.mark.parametrize("columns", [None, [4, 1], [2, 2]])
def test_gradients_are_those_of_the_explicit_softmax(columns: list[int] | None) -> None:
    rng = torch.Generator().manual_seed(0)
    makes = [(2, 6, 3), (2, 6, 3), (4, 6, 2)]
    layers = [
        tuple(torch.randn(2, heads, n, width, generator=rng).requires_grad_() for n in (queries, 5))
        for heads, queries, width in makes
    ]
    recorder = AttentionRecorder(columns=None if columns is None else torch.tensor(columns))
    for query, key in layers:
        recorder.record("cross", (2, 3), query, key, query.shape[-1] ** -0.5)
    expected = torch.stack(
        [(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).mean(1) for q, k in layers]
    ).mean(0)
    expected = expected if columns is None else expected[..., columns]
    found = recorder.recorded("cross")[2, 3]
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=rng)
    inputs = [x for layer in layers for x in layer]
    wanted = torch.autograd.grad((weights * expected).sum(), inputs)
    for one, other in zip(torch.autograd.grad((weights * found).sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(one, other)
