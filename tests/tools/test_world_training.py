"""Pieces of the training of the bundled world: the optimizer, mixed words, and losses with known answers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from world.clip import axis_loss, build, color_truth
from world.denoiser import encode_text, grounding_loss
from world.muon import Muon, optimizers, orthogonalized, set_share
from world.tokens import pieces, plain, tokenize

from ice_core.world.captions import Caption, Word
from ice_core.world.scenes import sample_scene


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
def test_an_orthogonalized_update_keeps_directions_and_evens_out_their_sizes(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    got = orthogonalized(matrix)
    sizes = torch.linalg.svdvals(got)
    assert s.max() / s.min() > sizes.max() / sizes.min()
    assert sizes.min() > 0.5
    assert sizes.max() < 1.3
    aligned = (u.T @ got @ v.T).diagonal()
    assert (aligned > 0.5).all()


def test_muon_takes_inner_matrices_and_adamw_the_rest_and_both_descend() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3))
    inner, plain_ones = optimizers(net, 0.02, 1e-2)
    assert isinstance(inner, Muon)
    assert [p.shape for g in inner.param_groups for p in g["params"]] == [(16, 16, 3, 3)]
    assert sum(len(g["params"]) for g in plain_ones.param_groups) == 5
    x = torch.randn(8, 3, 8, 8)
    target = torch.randn(8, 16, 4, 4)
    losses = []
    for _ in range(30):
        loss = F.mse_loss(net(x), target)
        losses.append(loss.item())
        for optimizer in (inner, plain_ones):
            optimizer.zero_grad()
        loss.backward()
        for optimizer in (inner, plain_ones):
            optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    set_share((inner, plain_ones), 0.5)
    set_share((inner, plain_ones), 0.25)
    assert inner.param_groups[0]["lr"] == pytest.approx(0.005)


def test_a_mixed_word_is_the_mean_of_its_rows_at_their_mean_norm() -> None:
    torch.manual_seed(0)
    model = build().eval()
    mixed = Caption((Word("a"), Word("red", (0,), (("red", 0.25), ("blue", 0.75)))), (), None)
    tokens = tokenize([mixed])
    ((row, position, parts),) = tokens.mixes
    assert (row, position) == (0, 2)
    assert parts == ((pieces("red")[0], 0.25), (pieces("blue")[0], 0.75))
    with torch.no_grad():
        table = model.token_embedding.weight
        plain_text, mixed_text = encode_text(model, tokenize([plain("a red")])), encode_text(model, tokens)
        assert torch.equal(plain_text[0, 1], mixed_text[0, 1])
        assert not torch.allclose(plain_text[0, 2], mixed_text[0, 2], atol=1e-3)
        red, blue = table[pieces("red")[0]], table[pieces("blue")[0]]
        wanted = 0.25 * red + 0.75 * blue
        wanted = wanted * (0.25 * red.norm() + 0.75 * blue.norm()) / wanted.norm()
        table[pieces("green")[0]] = wanted
        torch.testing.assert_close(
            encode_text(model, tokenize([plain("a green")])), mixed_text, atol=1e-5, rtol=1e-5
        )


def test_colors_of_a_picture_are_shared_among_the_names_around_them() -> None:
    from world.clip import COLOR_NAMES, View

    scenes = [sample_scene(i, count=1) for i in range(20)]
    truth = color_truth([View(s, (0,), True) for s in scenes] + [View(scenes[0], (), True)])
    torch.testing.assert_close(truth[:-1].sum(1), torch.ones(20), atol=1e-5, rtol=0)
    assert truth[-1].sum() == 0
    best = [COLOR_NAMES[i] for i in truth[:-1].argmax(1)]
    said = [{*s.objects[0].words("color"), *s.objects[0].words("fine")} for s in scenes]
    assert sum(b in words for b, words in zip(best, said, strict=True)) >= 16


def test_axis_words_are_drawn_to_their_own_values() -> None:
    values = {"color": torch.eye(4)[:1], "material": torch.eye(4)[1:2]}
    right = axis_loss(torch.eye(4)[:2], values)
    wrong = axis_loss(torch.eye(4)[[1, 0]], values)
    assert right < 1e-3 < wrong


def test_grounding_is_least_when_a_words_attention_lies_on_its_object() -> None:
    masks = torch.zeros(1, 4, 4, 4)
    masks[:, 0, :2], masks[:, 3, 2:] = 1, 1
    owners = torch.zeros(1, 77, 4)
    owners[0, 1, 0] = 1
    on, off = torch.full((1, 16, 77), 1e-4), torch.full((1, 16, 77), 1e-4)
    on[0, :8, 1], off[0, 8:, 1] = 0.5, 0.5
    active = torch.ones(1)
    assert grounding_loss([on], owners, masks, active) < grounding_loss([off], owners, masks, active)
