"""Settings of Stage One."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ice_core.errors import IceError
from ice_core.localization.segmentation import ObjectsConfig, SegmentationConfig

Strategy = Literal["objects", "words"]


@dataclass(frozen=True)
class LocalizationConfig:
    """Stage One with the paper's values.

    strategy: "objects" finds every object at once and then names each (ours); "words" is the paper's:
    retrieve a word, segment it, black out what is explained, go on. objects, segmentation: settings of the
    one and of the other, and of words that a user gives.
    max_rounds: words that are tried, or objects kept, at most. unexplained: end below this share of the
    picture. min_area: an object covers more than this share. patience: end after so many rounds in a row that
    find nothing new (ours: a word may be wrong, the next one right). neck: objects that touch are taken
    apart where their mask is at most this narrow, relative to the smaller one's thickness (ours; 0
    leaves them together). refine_masks: outlines of given masks are rough, draw them anew along the picture's
    contours.
    """

    max_rounds: int = 10
    unexplained: float = 0.10
    min_area: float = 0.025
    patience: int = 3
    neck: float = 0.7
    refine_masks: bool = False
    strategy: Strategy = "objects"
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            known = " or ".join(get_args(Strategy))
            raise IceError(f"unknown localization strategy {self.strategy!r}; choose {known}")
        for name in ("max_rounds", "patience"):
            if getattr(self, name) < 1:
                raise IceError(f"localization {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("unexplained", "min_area"):
            if not 0 <= getattr(self, name) < 1:
                raise IceError(f"localization {name} is {getattr(self, name)}; it is a share, 0 to below 1")
        if not 0 <= self.neck <= 1:
            raise IceError(f"localization neck is {self.neck}; it must be in 0..1")
