"""Pieces of the training of the bundled world: the optimizer, mixed words, and losses with known answers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from world.captioned import captioned_batches
from world.checkpoint import Budget
from world.clip import axis_loss, build, color_truth
from world.data import RenderedSet
from world.denoiser import encode_text, grounding_loss
from world.muon import Muon, optimizers, orthogonalized, set_share
from world.tokens import pieces, plain, tokenize
from world.vae import Pictures

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
    assert tokens.mixed_at.tolist() == [[0, 2]]
    assert tokens.mixed_ids.tolist() == [[pieces("red")[0], pieces("blue")[0]]]
    assert tokens.mixed_weights.tolist() == [[0.25, 0.75]]
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


@pytest.mark.parametrize("side", [64, 128])
def test_the_autoencoder_sees_pieces_of_pictures_and_the_weights_of_their_own_pixels(side: int) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (3, 3, 128, 128), generator=rng, dtype=torch.uint8)
    masks = torch.zeros(3, 3, 128, 128, dtype=torch.bool)
    masks[:, 1, 70:100, 20:60] = True
    pictures = Pictures.of(RenderedSet([], images, masks), torch.device("cpu"))
    top, left = (torch.tensor([0, 128 - side]) // 8 * 8 for _ in range(2))
    cut, weight = pictures.pieces(torch.tensor([2, 1]), top, left, side)
    for n, (picture, corner) in enumerate([(2, 0), (1, 128 - side)]):
        window = (slice(corner, corner + side), slice(corner, corner + side))
        torch.testing.assert_close(cut[n], images[picture][(slice(None), *window)] / 127.5 - 1)
        assert torch.equal(weight[n, 0] > 1, masks[picture, 1][window])
    cut, weight = pictures.crops(40, side, rng)
    assert cut.shape == (40, 3, side, side)
    assert ((weight - 1).mean((1, 2, 3)) > 0).float().mean() > 0.9
    whole = (images / 127.5 - 1).unfold(2, side, 8).unfold(3, side, 8).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    both = torch.cat([whole, whole.flip(-1)])
    assert all((piece == both).flatten(1).all(1).any() for piece in cut)


def test_what_is_done_goes_by_steps_or_by_the_clock_whichever_is_further() -> None:
    assert Budget(200).done(50) == 0.25
    assert Budget(0, minutes=5.0).done(0) == 1
    late = Budget(200, minutes=1.0, spent=45.0)
    assert late.done(50) == pytest.approx(0.75, abs=0.01)
    assert late.done(180) == 0.9
    # Hours that were spent step by step do not count against a clock that is set later.
    by_steps = Budget(200)
    by_steps.done(0)
    assert by_steps.seconds() == 0


def test_captions_come_out_the_same_from_the_same_seed_and_every_worker_has_scenes_of_its_own() -> None:
    scenes = [sample_scene(i) for i in range(12)]
    for workers in (0, 2):
        first, again = (captioned_batches(scenes, 6, 3, workers) for _ in range(2))
        for n in range(4):
            (picked, tokens), (picked_again, tokens_again) = next(first), next(again)
            assert torch.equal(picked, picked_again)
            assert torch.equal(tokens.ids, tokens_again.ids)
            assert torch.equal(tokens.mixed_weights, tokens_again.mixed_weights)
            assert tokens.ids.shape == (6, 77)
            if workers:
                assert (picked % 2 == n % 2).all()
