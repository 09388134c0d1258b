"""What refinement is asked to do, and where it stands, as values."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ice_core.concepts import ConceptSet, LearnedConcepts
from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, all_lora_targets
from ice_core.model.lora import Lora
from ice_core.training.plain import restored
from ice_core.training.state import picture_hash
from ice_core.training.state_file import below, check_progress, check_settings, read_state, state_bytes

_KIND = "refinement"


@dataclass(frozen=True)
class RefinementConfig:
    """What `refine` does. All ours: the paper tunes every weight at 2e-6, for 300 to 400 steps.

    steps: optimizer steps; 0 is no refinement.
    rank, alpha: of the LoRA; alpha None is the rank, so that its scale is 1.
    text_encoders: whether the LoRA adapts their attention too.
    learning_rate, weight_decay: of AdamW.
    prior_weight: of the loss on pictures that the model itself drew; 0 also draws none.
    prior_pictures: how many of them, the labels in turn.
    flip_probability: chance that picture and mask are mirrored.
    noise_offset: standard deviation of the noise that a whole channel shares.
    snapshot_every: steps between `RefinementSnapshot` events.

    Raises IceError for a value that cannot work.
    """

    steps: int = 0
    rank: int = 4
    alpha: float | None = None
    text_encoders: bool = False
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    prior_weight: float = 1.0
    prior_pictures: int = 8
    flip_probability: float = 0.5
    noise_offset: float = 0.1
    snapshot_every: int = 100

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("rank", 1), ("prior_pictures", 1), ("snapshot_every", 1)):
            if getattr(self, name) < least:
                raise IceError(
                    f"{name} of the refinement is {getattr(self, name)}: it must be {least} or more"
                )
        positive = {
            "learning_rate": self.learning_rate,
            "alpha": self.rank if self.alpha is None else self.alpha,
        }
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise IceError(f"{name} of the refinement is {value}: it must be above 0")
        for name in ("weight_decay", "prior_weight", "noise_offset"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise IceError(f"{name} of the refinement is {value}: it must be 0 or more")
        if not 0 <= self.flip_probability <= 1:
            raise IceError(
                f"flip_probability of the refinement is {self.flip_probability}: it must be in 0..1"
            )


@dataclass(frozen=True)
class RefinementState:
    """State after `step` steps; every tensor is a copy on the CPU.

    moments: AdamW's, by `<layer>/<down | up>/<exp_avg | exp_avg_sq | step>`; prior: latents [N, C, h, w] of
    the pictures that the model drew; generator: state of the random generator [bytes]; picture, learned:
    hashes of the picture and of the tokens that it was refined for.
    """

    step: int
    lora: Lora
    moments: Mapping[str, Tensor]
    prior: Tensor
    generator: Tensor
    config: RefinementConfig
    picture: str
    learned: str
    base_name: str
    base_fingerprint: str

    def to_bytes(self) -> bytes:
        """The state as the content of a safetensors file."""
        tensors = {f"down/{name}": value for name, value in self.lora.down.items()}
        tensors |= {f"up/{name}": value for name, value in self.lora.up.items()}
        tensors |= {f"moment/{name}": value for name, value in self.moments.items()}
        tensors |= {"prior": self.prior, "generator": self.generator}
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("lora", "moments", "prior", "generator", "config")
        }
        plain |= {"alpha": self.lora.alpha, "config": dataclasses.asdict(self.config)}
        return state_bytes(_KIND, plain, tensors)

    @classmethod
    def load(cls, path: Path | str) -> RefinementState:
        """Read a file of what `to_bytes` gave. Raises IceError when it is missing, damaged or something
        else."""
        return read_state(path, _KIND, cls._from_parts)

    @classmethod
    def _from_parts(cls, plain: dict[str, Any], tensors: Mapping[str, Tensor]) -> RefinementState:
        state = cls(
            lora=Lora(below(tensors, "down"), below(tensors, "up"), float(plain.pop("alpha"))),
            moments=below(tensors, "moment"),
            prior=tensors["prior"],
            generator=tensors["generator"],
            config=restored(RefinementConfig, plain.pop("config")),
            **plain,
        )
        check_progress(state.step, state.config.steps, state.generator)
        matrices = {"down": state.lora.down, "up": state.lora.up}
        for name, value in state.moments.items():
            layer, matrix, kind = name.rsplit("/", 2)
            if kind != "step" and value.shape != matrices[matrix][layer].shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}")
        return state

    def check(
        self, backbone: Backbone, concepts: ConceptSet, learned: LearnedConcepts, config: RefinementConfig
    ) -> None:
        """Raise IceError unless going on with these gives the same numbers."""
        if self.base_fingerprint != backbone.fingerprint:
            raise IceError(
                f"the refinement state was made with the base model {self.base_name} "
                f"({self.base_fingerprint[:12]}), not {backbone.name} ({backbone.fingerprint[:12]}): "
                "load that model, or refine again"
            )
        self.lora.check(all_lora_targets(backbone), backbone.name)
        if self.picture != picture_hash(concepts.image):
            raise IceError(
                "the refinement state is of another picture: give it the same one, or refine again"
            )
        if self.learned != tokens_hash(learned):
            raise IceError("the refinement state is of other tokens: give it those, or refine again")
        check_settings(_KIND, self.config, config, "refine again")


def tokens_hash(learned: LearnedConcepts) -> str:
    """SHA-256 of every token's name and rows, and of the seed."""
    digest = hashlib.sha256(repr(learned.seed).encode())
    for name, token in sorted(learned.tokens.items()):
        for encoder, rows in sorted(token.rows.items()):
            values = rows.detach().float().cpu().contiguous()
            digest.update(repr((name, encoder, tuple(values.shape))).encode() + values.numpy().tobytes())
    return digest.hexdigest()
