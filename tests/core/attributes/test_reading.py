"""Reading with CLIP: towers whose embeddings are known, and the bundled ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.attributes.reading import (
    ReadingConfig,
    closeness,
    probabilities,
    read_with_clip,
    reading_of,
    value_directions,
    views,
)
from ice_core.attributes.values import Axis
from ice_core.concepts import Concept, ConceptSet
from ice_core.errors import IceError

COLOR = Axis("color", ("red", "green", "blue"))


class ColorTowers:
    """Pictures are their mean color beside a constant; texts the color they name, and their label."""

    name, fingerprint, scale = "colors", "00", 10.0

    def encode_images(self, images: Tensor) -> Tensor:
        mean = images.mean((2, 3))
        return F.normalize(torch.cat([mean, 0.2 * torch.ones(len(mean), 1)], 1), dim=1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        rows = [[float(value in text.split()) for value in COLOR.values] + [1.0] for text in texts]
        return F.normalize(torch.tensor(rows), dim=1)


def two_bands() -> ConceptSet:
    """Red at the left, blue at the right, on green."""
    image = torch.zeros(3, 32, 48)
    image[1] = 1
    masks = torch.zeros(2, 32, 48, dtype=torch.bool)
    masks[0, 4:20, 2:14] = True
    masks[1, 8:30, 30:48] = True
    image[:, masks[0]] = torch.tensor([[1.0], [0], [0]])
    image[:, masks[1]] = torch.tensor([[0.0], [0], [1]])
    concepts = (Concept("ball", "ball", masks[0], 1.0), Concept("ball-2", "ball", masks[1], 1.0))
    return ConceptSet(image, concepts, ~(masks[0] | masks[1]))


def test_every_object_is_read_alone() -> None:
    readings = read_with_clip(ColorTowers(), two_bands(), [COLOR], ReadingConfig(temperature=0.2))
    assert [readings[key]["color"].value for key in ("ball", "ball-2")] == ["red", "blue"]
    assert readings["ball"]["color"].reader == "clip"
    weights = [c.weight for c in readings["ball"]["color"].candidates]
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1)


def test_nothing_fits_an_object_that_no_value_tells_from_another() -> None:
    concepts = two_bands()
    grey = ConceptSet(torch.full_like(concepts.image, 0.5), concepts.concepts, concepts.background)
    reading = read_with_clip(ColorTowers(), grey, [COLOR])["ball"]["color"]
    assert not reading.fits
    assert reading.value is None
    assert reading.candidates[0].weight == pytest.approx(1 / 3)


def test_a_free_axis_has_nothing_to_choose() -> None:
    reading = read_with_clip(ColorTowers(), two_bands(), [Axis("mood2")])["ball"]["mood2"]
    assert reading.candidates == ()
    assert not reading.fits


def test_a_direction_is_what_a_value_adds_to_the_label() -> None:
    towers, templates = ColorTowers(), ("a photo of a {}", "the {}")
    expected = []
    for value in COLOR.values:
        differences = [
            towers.encode_texts([t.format(f"{value} ball")])[0] - towers.encode_texts([t.format("ball")])[0]
            for t in templates
        ]
        expected.append(sum(d / d.norm() for d in differences) / len(differences))
    torch.testing.assert_close(value_directions(towers, "ball", COLOR, templates), torch.stack(expected))


def test_probabilities_are_the_models_own_softmax_at_another_temperature() -> None:
    scores = torch.tensor([0.3, 0.1, -0.2])
    expected = (scores * 10 / 0.5).exp() / (scores * 10 / 0.5).exp().sum()
    torch.testing.assert_close(probabilities(scores, 10, 0.5), expected)


def test_near_synonyms_are_sure_together() -> None:
    axis = Axis("color", ("crimson", "blue", "red", "green"))
    weights = torch.tensor([0.4, 0.1, 0.38, 0.12])
    alone = reading_of(axis, weights, torch.eye(4), "clip", 2, 0.5)
    near = torch.eye(4)
    near[0, 2] = near[2, 0] = 0.9
    together = reading_of(axis, weights, near, "clip", 2, 0.5)
    assert not alone.fits
    assert together.fits
    assert [c.value for c in together.candidates] == ["crimson", "red"]


def test_no_group_of_synonyms_fits_by_its_size_alone() -> None:
    axis, even = Axis("finish", ("matte", "glossy", "satin")), torch.ones(3) / 3
    near = torch.eye(3)
    near[0, 1] = near[1, 0] = 0.9
    assert not reading_of(axis, even, near, "clip", 3, 0.5).fits
    assert not reading_of(axis, even, torch.ones(3, 3), "clip", 3, 0.5).fits
    assert reading_of(axis, torch.tensor([0.6, 0.3, 0.1]), near, "clip", 3, 0.5).fits


@pytest.mark.parametrize(("weights", "degrees"), [([0.1, 0.9], (("narrow", "wide"),)), ([0.9, 0.1], ())])
def test_a_reading_has_the_degrees_of_its_axis_unless_it_says_that_there_is_nothing(
    weights: list[float], degrees: tuple[tuple[str, str], ...]
) -> None:
    axis = Axis("pattern", ("plain", "striped"), (("narrow", "wide"),))
    assert reading_of(axis, torch.tensor(weights), torch.eye(2), "clip", 2, 0.5).degrees == degrees


def test_alike_are_values_that_lie_in_one_direction() -> None:
    directions = torch.tensor([[1.0, 0, 5], [0.95, 0.1, 5], [-1, 0, 5], [0, -1, 5]])
    near = closeness(directions) > 0.7
    assert near[0, 1]
    assert near[1, 0]
    assert near.sum() == 6


def test_views_hide_what_is_not_the_object() -> None:
    image, mask = two_bands().image, two_bands().concepts[0].mask
    black, crop, mean, picture = views(image, mask, ["black", "black crop", "mean", "picture"])
    assert black.shape == (3, 48, 48)
    assert black[1:].abs().max() < 1e-6
    red = (crop[0] > 0.5).float().mean()
    assert red > (black[0] > 0.5).float().mean() * 3
    assert mean[1].min() >= 0
    assert mean[2].max() > 0.1
    assert picture[1].max() == 1


def test_a_crop_at_the_border_keeps_the_object_in_its_middle() -> None:
    image, mask = two_bands().image, two_bands().concepts[1].mask
    (crop,) = views(image, mask, ["black crop"])
    columns = (crop[2] > 0.5).any(0).nonzero()[:, 0]
    assert abs(int(columns[0]) - (47 - int(columns[-1]))) <= 2


def test_an_object_that_is_everything_can_be_read() -> None:
    mask = torch.ones(16, 16, dtype=torch.bool)
    names = ["black", "mean", "mean crop", "picture crop"]
    assert views(torch.rand(3, 16, 16), mask, names).shape == (4, 3, 16, 16)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"views": ()}, "view"),
        ({"views": ("white",)}, "'white'"),
        ({"templates": ("a photo",)}, "template"),
        ({"templates": ()}, "template"),
        ({"temperature": 0.0}, "temperature"),
        ({"candidates": 0}, "candidates"),
        ({"confidence": 1.5}, "confidence"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], wrong: str) -> None:
    with pytest.raises(IceError, match=wrong):
        ReadingConfig(**settings)  # type: ignore[arg-type]


def test_an_object_without_a_mask_is_refused() -> None:
    concepts = two_bands()
    empty = Concept("ball", "ball", torch.zeros(32, 48, dtype=torch.bool), 1.0)
    with pytest.raises(IceError, match="empty"):
        read_with_clip(ColorTowers(), ConceptSet(concepts.image, (empty,), concepts.background), [COLOR])
