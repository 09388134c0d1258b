"""Wires of the host as values of the core, and back."""

from __future__ import annotations

import pytest
import torch
from fakes import FakeBackbone
from PIL import Image

from ice_core.concepts import Concept, ConceptSet
from ice_core.errors import IceError
from nodes import values


def picture(height: int, width: int) -> torch.Tensor:
    """[3, height, width], the same at every size but for sampling."""
    rows, columns = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    return torch.stack([rows[:, None].expand(-1, width), columns.expand(height, -1), rows[:, None] * columns])


def concepts(height: int = 32, width: int = 64) -> ConceptSet:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[: height // 2, : width // 2] = True
    return ConceptSet(picture(height, width), (Concept("ball", "ball", mask, 0.5),), ~mask)


def test_an_image_becomes_a_picture_and_comes_back_the_same_at_eight_bits() -> None:
    image = torch.randint(0, 256, (1, 40, 56, 3)) / 255
    pixels = values.picture_of(image)
    assert pixels.shape == (3, 40, 56)
    pil = Image.fromarray((pixels.movedim(0, -1) * 255).round().byte().numpy())
    assert torch.equal(values.image_of(pil), image)


def test_transparent_pixels_become_white_and_opaque_ones_stay() -> None:
    image = torch.zeros(1, 32, 32, 4)
    image[:, :16, :, 3] = 1
    over_white = values.picture_of(image)
    assert over_white[:, :16].max() == 0
    assert over_white[:, 16:].min() == 1


def test_a_grey_image_gets_three_channels() -> None:
    assert values.picture_of(torch.rand(1, 32, 48, 1)).shape == (3, 32, 48)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(2, 32, 32, 3), "batch of 2"),
        (torch.rand(1, 31, 64, 3), "64 x 31 pixels"),
        (torch.full((1, 32, 32, 3), float("nan")), "not numbers"),
        (torch.full((1, 32, 32, 3), float("inf")), "not numbers"),
        (torch.rand(1, 32, 32, 2), "of shape"),
        (torch.rand(32, 32, 3), "of shape"),
    ],
)
def test_images_that_cannot_be_used_are_refused_with_a_reason(image: torch.Tensor, message: str) -> None:
    with pytest.raises(IceError, match=message):
        values.picture_of(image)


def test_a_batch_of_masks_is_one_mask_each_and_a_single_one_is_one() -> None:
    assert [m.shape for m in values.masks_in(torch.zeros(3, 5, 7))] == [(5, 7)] * 3
    assert [m.shape for m in values.masks_in(torch.zeros(5, 7))] == [(5, 7)]


def test_masks_of_concepts_have_the_asked_size() -> None:
    masks = values.masks_of(concepts().concepts, (64, 128))
    assert masks.shape == (1, 64, 128)
    assert masks.dtype == torch.float32
    assert masks.mean() == 0.25


def test_concepts_that_fit_already_are_left_alone() -> None:
    given = concepts()
    assert values.refit(given, picture(32, 64), (32, 64)) is given


def test_concepts_are_resized_to_what_a_model_works_at() -> None:
    fitted = values.refit(concepts(), picture(100, 210), (64, 128))
    assert fitted.image.shape == (3, 64, 128)
    assert fitted.background.shape == fitted.concepts[0].mask.shape == (64, 128)
    assert fitted.concepts[0].area == 0.25


def test_a_picture_of_another_shape_than_that_of_the_concepts_is_refused() -> None:
    with pytest.raises(IceError, match="the image that they were found in"):
        values.refit(concepts(), torch.rand(3, 64, 64), (64, 64))


def test_another_picture_of_the_same_shape_is_refused_and_the_same_one_compressed_is_not() -> None:
    with pytest.raises(IceError, match="another one than the concepts were found in"):
        values.refit(concepts(), 1 - picture(32, 64), (32, 64))
    compressed = (picture(32, 64) * 32).round() / 32
    assert values.refit(concepts(), compressed, (32, 64))


def test_words_stand_on_lines_or_between_commas() -> None:
    assert values.words_in(" ball, wine  glass\n\n,cube ") == ["ball", "wine glass", "cube"]
    assert values.words_in(" \n, ") == []


def test_cancel_is_looked_for_before_every_pass_of_the_denoiser(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled(BaseException):
        pass

    def cancel() -> None:
        raise Cancelled

    backbone = values.Cancellable(FakeBackbone())
    assert backbone.native_size == 64
    monkeypatch.setattr(values, "check_cancel", cancel)
    with pytest.raises(Cancelled):
        backbone.predict()


def test_pictures_of_a_batch_are_taken_one_by_one() -> None:
    batch = torch.rand(3, 32, 48, 3)
    pictures = values.pictures_of(batch)
    assert len(pictures) == 3
    for one, picture in zip(batch, pictures, strict=True):
        assert torch.equal(picture, values.picture_of(one[None]))
    with pytest.raises(IceError):
        values.pictures_of(torch.rand(32, 48, 3))


def test_the_last_of_a_list_counts_for_all_that_follow() -> None:
    assert [values.at(["a", "b"], n) for n in range(4)] == ["a", "b", "b", "b"]
