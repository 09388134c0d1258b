"""The values that flow: which model they fit."""

from __future__ import annotations

import pytest
from fakes import FakeBackbone
from tokens import learned, token

from ice_core.concepts import check_fits
from ice_core.errors import IceError


def test_rows_of_another_width_are_refused_and_the_base_is_named() -> None:
    check_fits(learned(), FakeBackbone())
    with pytest.raises(IceError, match=r"made for fake .*clip_l x 768.*takes clip_l x 16"):
        check_fits(learned(width=768), FakeBackbone())
    with pytest.raises(IceError, match="clip_g"):
        check_fits(token("x", encoders=("clip_l", "clip_g")), FakeBackbone())
