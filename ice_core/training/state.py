"""Where training stands, as a value: enough to go on to the same numbers, in one safetensors file."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ice_core.concepts import ConceptSet, LearnedConcept, LearnedConcepts, mean_row
from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, Token
from ice_core.training.config import TrainingConfig
from ice_core.training.state_file import below, check_progress, check_settings, read_state, state_bytes

_KIND = "training"


@dataclass(frozen=True)
class TrainingState:
    """State after `step` steps; every tensor is a copy on the CPU.

    concepts: (key, label) of each object, in the picture's order; tokens: by name, `<key>.instance`,
    `<key>.object` and, once phase 2 has begun, `<key>.<axis>`; moments: AdamW's, by
    `<token>/<encoder>/<exp_avg | exp_avg_sq | step>`, of the current phase's tokens; generator: state of
    the random generator [bytes]; picture: hash of the picture that is learned from.
    """

    step: int
    concepts: tuple[tuple[str, str], ...]
    tokens: Mapping[str, Token]
    moments: Mapping[str, Tensor]
    generator: Tensor
    config: TrainingConfig
    picture: str
    base_name: str
    base_fingerprint: str
    architecture: str

    @property
    def phase(self) -> int:
        """Phase of the next step: 1 object level, 2 intrinsic level."""
        return 1 if self.step < self.config.switch else 2

    def to_bytes(self) -> bytes:
        """The state as the content of a safetensors file."""
        tensors = {
            f"token/{name}/{encoder}": rows
            for name, token in self.tokens.items()
            for encoder, rows in token.rows.items()
        }
        tensors |= {f"moment/{name}": value for name, value in self.moments.items()}
        tensors["generator"] = self.generator
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("tokens", "moments", "generator", "config")
        }
        return state_bytes(_KIND, plain | {"config": dataclasses.asdict(self.config)}, tensors)

    @classmethod
    def load(cls, path: Path | str) -> TrainingState:
        """Read a file of what `to_bytes` gave. Raises IceError when it is missing, damaged or something
        else."""
        return read_state(path, _KIND, cls._from_parts)

    @classmethod
    def _from_parts(cls, plain: dict[str, Any], tensors: Mapping[str, Tensor]) -> TrainingState:
        settings: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in plain.pop("config").items()
        }
        rows: dict[str, dict[str, Tensor]] = {}
        for name, value in below(tensors, "token").items():
            token, encoder = name.rsplit("/", 1)
            rows.setdefault(token, {})[encoder] = value
        plain["concepts"] = tuple((key, label) for key, label in plain["concepts"])
        state = cls(
            **plain,
            tokens={name: Token(name, value) for name, value in rows.items()},
            moments=below(tensors, "moment"),
            generator=tensors["generator"],
            config=TrainingConfig(**settings),
        )
        check_progress(state.step, state.config.steps, state.generator)
        kinds = ("instance", "object", *(state.config.axes if state.step > state.config.switch else ()))
        missing = {f"{key}.{kind}" for key, _ in state.concepts for kind in kinds} - rows.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        for name, value in state.moments.items():
            token, encoder, kind = name.rsplit("/", 2)
            if kind != "step" and value.shape != rows[token][encoder].shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}")
        return state

    def check(self, backbone: Backbone, concepts: ConceptSet, config: TrainingConfig) -> None:
        """Raise IceError unless going on with this model, picture and settings gives the same numbers."""
        if self.base_fingerprint != backbone.fingerprint:
            raise IceError(
                f"the training state was made with the base model {self.base_name} ({self.architecture}, "
                f"{self.base_fingerprint[:12]}), not {backbone.name} ({backbone.fingerprint[:12]}): "
                "load that model, or start training again"
            )
        for name, token in self.tokens.items():
            widths = {encoder: rows.shape[-1] for encoder, rows in token.rows.items()}
            if widths != dict(backbone.encoders) or any(rows.ndim != 2 for rows in token.rows.values()):
                raise IceError(
                    f"the token {name} of the training state is {widths}, but {backbone.name} takes "
                    f"{dict(backbone.encoders)}: it was made for {self.base_name}"
                )
        found = tuple((c.key, c.label) for c in concepts.concepts)
        if sorted(self.concepts) != sorted(found):
            names = ", ".join(key for key, _ in self.concepts)
            raise IceError(
                f"the training state is of the objects {names}, not {', '.join(k for k, _ in found)}: "
                "give it the same objects, or start training again"
            )
        if self.picture != picture_hash(concepts.image):
            raise IceError("the training state is of another picture: give it the same one, or start again")
        check_settings(_KIND, self.config, config, "start training again")


def picture_hash(image: Tensor) -> str:
    """SHA-256 of a picture [3, H, W] in 0..1 at 8 bits."""
    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    return hashlib.sha256(repr(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()


def learned_so_far(state: TrainingState) -> LearnedConcepts:
    """What can be used of an unfinished training.

    In phase 1 there are no intrinsic tokens yet; they are given phase 2's start values, the instance
    token's rows.
    """
    learned = []
    for key, label in state.concepts:
        instance = state.tokens[f"{key}.instance"]
        intrinsics = {
            axis: Token(f"{key}.{axis}", state.tokens.get(f"{key}.{axis}", instance).rows).detach()
            for axis in state.config.axes
        }
        object_ = state.tokens[f"{key}.object"].detach()
        learned.append(LearnedConcept(key, label, instance.detach(), object_, intrinsics))
    return LearnedConcepts(
        concepts=tuple(learned),
        axes=state.config.axes,
        base_name=state.base_name,
        base_fingerprint=state.base_fingerprint,
        architecture=state.architecture,
        seed=state.config.seed,
        steps=state.step,
    )


def begin(backbone: Backbone, concepts: ConceptSet, config: TrainingConfig) -> TrainingState:
    """Step 0: instance and object token of each object are the mean embedding row of its label."""
    tokens = {}
    for concept in concepts.concepts:
        rows = mean_row(backbone.word_rows(concept.label))
        for kind in ("instance", "object"):
            token = Token(f"{concept.key}.{kind}", rows).detach()
            tokens[token.name] = token
    return TrainingState(
        step=0,
        concepts=tuple((c.key, c.label) for c in concepts.concepts),
        tokens=tokens,
        moments={},
        generator=torch.Generator().manual_seed(config.seed).get_state(),
        config=config,
        picture=picture_hash(concepts.image),
        base_name=backbone.name,
        base_fingerprint=backbone.fingerprint,
        architecture=backbone.architecture,
    )
