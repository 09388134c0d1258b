from __future__ import annotations

import pytest
from fakes import FakeBackbone
from tokens import learned, token

from ice_core.concepts import check_fits
from ice_core.errors import IceError
from ice_core.model.encoders import family_of


def test_rows_of_another_width_are_refused_and_the_base_is_named() -> None:
    check_fits(learned(), FakeBackbone())
    with pytest.raises(IceError, match=r"made for fake .*clip_l x 768.*fake is .*clip_l x 16"):
        check_fits(learned(width=768), FakeBackbone())
    with pytest.raises(IceError, match="clip_g"):
        check_fits(token("x", encoders=("clip_l", "clip_g")), FakeBackbone())


@pytest.mark.parametrize(
    ("widths", "name"),
    [
        ({"clip_l": 768}, "Stable Diffusion 1.x (clip_l x 768)"),
        ({"clip_h": 1024}, "Stable Diffusion 2.x (clip_h x 1024)"),
        ({"clip_g": 1280, "clip_l": 768}, "Stable Diffusion XL (clip_g x 1280, clip_l x 768)"),
        ({"clip_l": 64}, "a model of its own kind (clip_l x 64)"),
    ],
)
def test_widths_tell_the_family(widths: dict[str, int], name: str) -> None:
    assert family_of(widths) == name
