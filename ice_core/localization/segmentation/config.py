"""Settings of the attention segmentor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ice_core.errors import IceError

Method = Literal["clusters", "propagation"]
AffinityName = Literal["clusterability", "mean", "chains", "walks"]


@dataclass(frozen=True)
class SegmentationConfig:
    """ICE (arXiv 2503.19902, section 3.1) with the attention clustering of DiffSeg (arXiv 2308.12469).

    method: "clusters" labels regions of similar self-attention by a vote of the words' maps;
        "propagation" spreads the words' maps along self-attention and compares them at every pixel.
    timestep: how much noise the picture gets, of the model's 1000 steps.
    draws, flip: maps are averaged over this many noise draws, and over the mirrored picture.
    anchors, tau, rounds, kmeans: clusters; anchors per side, largest symmetric KL distance (nats) at
        which two maps are merged, rounds of merging, rounds of k-means after them.
    power, sharpness: propagation; how often the maps are spread (0, best on the bundled model as it is,
        leaves the words' maps to the edge-aware filter alone), and the exponent that makes
        self-attention more decided first (1 leaves it).
    balance: 1 compares words by L2-normalised maps as the paper does, 0 by their plain share of
        attention. In between (ours), a word that is nowhere does not win because its map is flat.
    guide: radius of the edge-aware filter that fits the maps to the picture, in attention cells;
        0 turns it off.
    """

    method: Method = "propagation"
    timestep: int = 150
    draws: int = 2
    flip: bool = True
    anchors: int = 16
    tau: float = 1.1
    rounds: int = 3
    kmeans: int = 0
    power: int = 0
    sharpness: float = 1.0
    balance: float = 0.5
    guide: float = 1.5

    @property
    def looks_at_itself(self) -> bool:
        """Whether self-attention is used."""
        return self.method == "clusters" or self.power > 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            known = " or ".join(get_args(Method))
            raise IceError(f"unknown segmentation method {self.method!r}; choose {known}")
        for name in ("draws", "anchors", "rounds"):
            if not getattr(self, name) >= 1:
                raise IceError(f"segmentation {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("timestep", "kmeans", "power", "balance", "guide"):
            if not getattr(self, name) >= 0:
                raise IceError(f"segmentation {name} is {getattr(self, name)}; it must not be negative")
        for name in ("tau", "sharpness"):
            if not getattr(self, name) > 0:
                raise IceError(f"segmentation {name} is {getattr(self, name)}; it must be above 0")


@dataclass(frozen=True)
class ObjectsConfig:
    """How objects are found before any word is known (`find_objects`).

    timestep: how much noise the picture gets, of the model's 1000 steps, to tell the foreground. foreground:
        a pixel whose share of attention to other words than "background" is above this.
    cut_timestep: noise of the pass that tells objects apart: more of it, for then the model looks at things
        rather than at their parts. draws: of noise, in either pass. affinity: how its heads become one
        affinity between places, see `affinities`. cut: places of the foreground are taken apart while a
        normalized cut (0 to 2) costs at most this, which is set to that affinity.
    guide: radius of the edge-aware filter that fits the foreground to the picture, in attention cells,
        half of it for the borders between objects; 0 turns it off.
    walk: contrast (scikit-image's beta) of the random walk that draws the outlines anew between what is
        surely an object and what is surely ground, which lets shadows go; 0 turns it off.
    """

    timestep: int = 50
    foreground: float = 0.6
    cut_timestep: int = 400
    draws: int = 2
    affinity: AffinityName = "clusterability"
    cut: float = 0.31
    guide: float = 2.0
    walk: float = 60.0

    def __post_init__(self) -> None:
        if self.affinity not in (known := get_args(AffinityName)):
            raise IceError(f"unknown affinity {self.affinity!r}; choose one of {', '.join(known)}")
        if not self.draws >= 1:
            raise IceError(f"objects draws is {self.draws}; it must be at least 1")
        for name in ("timestep", "cut_timestep", "guide", "walk"):
            if not getattr(self, name) >= 0:
                raise IceError(f"objects {name} is {getattr(self, name)}; it must not be negative")
        if not 0 < self.foreground < 1:
            raise IceError(f"objects foreground is {self.foreground}; it is a share, between 0 and 1")
        if not 0 <= self.cut <= 2:
            raise IceError(f"objects cut is {self.cut}; it must be in 0..2")
