"""The second reader: towers that are unsure, and a denoiser whose errors are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from fakes import FakeBackbone
from knowing import Knowing

from ice_core.attributes import second_reader
from ice_core.attributes.reading import ReadingConfig, Weighed, readings_of
from ice_core.attributes.second_reader import LEAST_WEIGHT, SHARPNESS, reconsider, together
from ice_core.attributes.values import Axis, Reading, Readings, said
from ice_core.concepts import Concept, ConceptSet
from ice_core.run.pipeline import finish

COLOR, MATERIAL = Axis("color", ("red", "orange", "amber", "blue")), Axis("material", ("wood", "metal"))
CONFIG = ReadingConfig(noises=4, confidence=0.3)


def two_objects() -> ConceptSet:
    """A ball and a cube, side by side."""
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:40, 8:28] = masks[1, 16:56, 36:60] = True
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    concepts = (Concept("ball", "ball", masks[0], 1.0), Concept("cube", "cube", masks[1], 1.0))
    return ConceptSet(image, concepts, ~(masks[0] | masks[1]))


def weighed(**weights: Sequence[float]) -> dict[str, dict[str, Weighed]]:
    """By object, its colors' probabilities; what it is made of is beyond doubt."""
    sure = Weighed(MATERIAL, torch.tensor([0.01, 0.99]), torch.eye(2))
    return {
        key: {"color": Weighed(COLOR, torch.tensor(of), torch.eye(4)), "material": sure}
        for key, of in weights.items()
    }


def knowing(wrong: float = 0.5) -> Knowing:
    """What knows that the ball is amber, or the cube."""
    return Knowing(two_objects().image, "amber ball", "amber metal", wrong=wrong)


def decided(weights: dict[str, dict[str, Weighed]], *known: Reading) -> tuple[Readings, Knowing]:
    backbone = knowing()
    first = {k: dict(of) for k, of in readings_of(weights, [COLOR, MATERIAL], CONFIG).items()}
    first["ball"] |= {one.axis: one for one in known}
    rng = torch.Generator().manual_seed(0)
    return finish(reconsider(backbone, two_objects(), weights, first, CONFIG, rng)), backbone


def test_the_model_decides_where_clip_is_unsure() -> None:
    unsure = weighed(ball=[0.04, 0.6, 0.3, 0.06], cube=[0.97, 0.01, 0.01, 0.01])
    readings, backbone = decided(unsure)
    assert readings["ball"]["color"].value == "amber"
    assert readings["ball"]["color"].reader == "both"
    assert readings["cube"]["color"] == Reading(
        "color", readings["cube"]["color"].candidates, "clip", neighbors=readings["cube"]["color"].neighbors
    )
    assert readings["cube"]["color"].value == "red"
    # Of every word one prompt, with the object's other words, and the other object beside it.
    assert sorted(backbone.told) == sorted(
        f"a photo of a {color} metal ball and a red metal cube" for color in COLOR.values
    )


def test_what_a_user_said_stays_and_is_known() -> None:
    unsure = weighed(ball=[0.04, 0.6, 0.3, 0.06], cube=[0.5, 0.3, 0.1, 0.1])
    readings, backbone = decided(unsure, said("color", "azure"))
    assert readings["ball"]["color"] == said("color", "azure")
    assert readings["cube"]["color"].value == "amber"
    assert all(text.endswith("and a azure metal ball") for text in backbone.told)


def test_without_doubt_nothing_is_asked() -> None:
    sure = weighed(ball=[0.96, 0.02, 0.01, 0.01], cube=[0.97, 0.01, 0.01, 0.01])
    readings, backbone = decided(sure)
    assert backbone.told == []
    assert readings == readings_of(sure, [COLOR, MATERIAL], CONFIG)


def test_a_prompt_that_would_be_too_long_says_less() -> None:
    long = Weighed(
        Axis("mood", ("calm", " ".join(["very"] * 80) + " loud")), torch.tensor([0.0, 1.0]), torch.eye(2)
    )
    unsure = weighed(ball=[0.04, 0.6, 0.3, 0.06], cube=[0.97, 0.01, 0.01, 0.01])
    for of in unsure.values():
        of["mood"] = long
    backbone = knowing()
    first = readings_of(unsure, [COLOR, MATERIAL, long.axis], CONFIG)
    rng = torch.Generator().manual_seed(0)
    finish(reconsider(backbone, two_objects(), unsure, first, CONFIG, rng))
    assert sorted(backbone.told) == sorted(f"a photo of a {color} ball" for color in COLOR.values)


def test_clips_word_stays_where_the_model_gives_no_numbers() -> None:
    unsure = weighed(ball=[0.04, 0.6, 0.3, 0.06], cube=[0.5, 0.3, 0.1, 0.1])
    first = readings_of(unsure, [COLOR, MATERIAL], CONFIG)
    rng = torch.Generator().manual_seed(0)
    assert finish(reconsider(knowing(wrong=torch.inf), two_objects(), unsure, first, CONFIG, rng)) == first


def test_probabilities_are_clips_times_the_models_among_the_words_tried() -> None:
    weights, found = torch.tensor([0.5, 0.1, 0.3, 0.1]), torch.tensor([0.2, 0.21])
    result = together(weights, torch.tensor([0, 2]), found)
    first, second = (
        weights[0] + LEAST_WEIGHT,
        (weights[2] + LEAST_WEIGHT) * torch.tensor(-SHARPNESS * 0.05).exp(),
    )
    torch.testing.assert_close(result[0], 0.8 * first / (first + second))
    torch.testing.assert_close(result[2], 0.8 * second / (first + second))
    assert result[[1, 3]].tolist() == weights[[1, 3]].tolist()
    assert float(result.sum()) == pytest.approx(1)


def test_no_probability_is_above_one() -> None:
    weights = torch.tensor([0.25000003, 0.25, 0.25, 0.25])
    result = together(weights, torch.arange(4), torch.tensor([1e-3, 1.0, 1.0, 1.0]))
    assert float(result.max()) <= 1


def test_something_fits_that_both_together_are_sure_of() -> None:
    spread = weighed(ball=[0.25, 0.24, 0.26, 0.25], cube=[0.97, 0.01, 0.01, 0.01])
    assert not readings_of(spread, [COLOR, MATERIAL], CONFIG)["ball"]["color"].fits
    readings, _ = decided(spread)
    assert readings["ball"]["color"].value == "amber"


def test_what_clip_was_sure_enough_of_stays_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_reader, "together", lambda *_: torch.tensor([0.24, 0.26, 0.25, 0.25]))
    readings, _ = decided(weighed(ball=[0.6, 0.2, 0.1, 0.1], cube=[0.97, 0.01, 0.01, 0.01]))
    assert readings["ball"]["color"].value == "orange"
    assert readings["ball"]["color"].fits


def test_words_that_no_prompt_holds_are_not_tried() -> None:
    endless = Axis("color", ("red", " ".join(["very"] * 80), "amber"))
    unsure = weighed(ball=[], cube=[])
    for of in unsure.values():
        of["color"] = Weighed(endless, torch.tensor([0.3, 0.6, 0.1]), torch.eye(3))
    first, backbone = readings_of(unsure, [endless, MATERIAL], CONFIG), knowing()
    rng = torch.Generator().manual_seed(0)
    readings = finish(reconsider(backbone, two_objects(), unsure, first, CONFIG, rng))
    assert not any("very very" in text.partition(" and a ")[0] for text in backbone.told)
    assert readings["ball"]["color"].candidates[1].value == "amber"


def test_the_same_generator_decides_the_same() -> None:
    unsure = weighed(ball=[0.3, 0.4, 0.3, 0.0], cube=[0.4, 0.3, 0.2, 0.1])
    first = readings_of(unsure, [COLOR, MATERIAL], replace(CONFIG, confidence=0.1))

    def run(config: ReadingConfig) -> tuple[list[tuple[int, int]], Readings]:
        told: list[tuple[int, int]] = []
        rng = torch.Generator().manual_seed(5)
        deciding = reconsider(FakeBackbone(), two_objects(), unsure, first, config, rng)
        return told, finish(deciding, told.append)

    assert run(CONFIG) == run(CONFIG)
    assert run(CONFIG)[0] == [(0, 2), (1, 2)]
    assert run(replace(CONFIG, noises=6))[1] != run(CONFIG)[1]
