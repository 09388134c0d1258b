"""Where training stands, as a value: enough to go on to the same numbers, in one safetensors file."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ice_core.concepts import (
    ConceptSet,
    LearnedConcept,
    LearnedConcepts,
    Reading,
    Readings,
    readings_from_plain,
    readings_to_plain,
)
from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, Token
from ice_core.training.config import TrainingConfig
from ice_core.training.plain import restored
from ice_core.training.state_file import below, check_progress, check_settings, read_state, state_bytes

_KIND = "training"


@dataclass(frozen=True)
class TrainingState:
    """State after `step` steps; every tensor is a copy on the CPU.

    concepts: (key, label) of each object, in the picture's order; tokens: by name, `<key>.instance`,
    `<key>.object` and `<key>.<axis>`, as far as the method has them by now; moments: AdamW's, by
    `<token>/<encoder>/<exp_avg | exp_avg_sq | step>`, of the current phase's tokens; generator: state of
    the random generator [bytes]; picture: hash of the picture that is learned from; readings: what was read
    of the objects before; extra: what else a method needs to go on, by name; settled: whether it ended
    before its last step.
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
    readings: Readings = field(default_factory=dict)
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    settled: bool = False

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.settled or self.step == self.config.steps

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
        tensors |= {f"extra/{name}": value for name, value in self.extra.items()}
        tensors["generator"] = self.generator
        plain = {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if one.name not in ("tokens", "moments", "generator", "config", "readings", "extra")
        }
        plain["config"] = dataclasses.asdict(self.config)
        plain["readings"] = readings_to_plain(self.readings)
        return state_bytes(_KIND, plain, tensors)

    @classmethod
    def load(cls, path: Path | str) -> TrainingState:
        """Read a file of what `to_bytes` gave. Raises IceError when it is missing, damaged or something
        else."""
        return read_state(path, _KIND, cls._from_parts)

    @classmethod
    def _from_parts(cls, plain: dict[str, Any], tensors: Mapping[str, Tensor]) -> TrainingState:
        config = restored(TrainingConfig, plain.pop("config"))
        rows: dict[str, dict[str, Tensor]] = {}
        for name, value in below(tensors, "token").items():
            token, encoder = name.rsplit("/", 1)
            rows.setdefault(token, {})[encoder] = value
        plain["concepts"] = tuple((key, label) for key, label in plain["concepts"])
        plain["readings"] = readings_from_plain(plain["readings"])
        state = cls(
            **plain,
            tokens={name: Token(name, value) for name, value in rows.items()},
            moments=below(tensors, "moment"),
            generator=tensors["generator"],
            config=config,
            extra=below(tensors, "extra"),
        )
        check_progress(state.step, state.config.steps, state.generator)
        if not all(
            value.ndim == 2 and value.isfinite().all() for of in rows.values() for value in of.values()
        ):
            raise ValueError("it has rows that are no numbers")
        missing = state._needed() - rows.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        for name, value in state.moments.items():
            token, encoder, kind = name.rsplit("/", 2)
            if kind != "step" and value.shape != rows[token][encoder].shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}")
        return state

    def _needed(self) -> set[str]:
        """Names of the tokens without which this is no state of its method."""
        config = self.config
        if config.method == "paper":
            late = config.axes if self.step > config.switch else ()
            return {f"{key}.{kind}" for key, _ in self.concepts for kind in ("instance", "object", *late)}
        axes = {key: learnable_axes(config, self.readings.get(key, {})) for key, _ in self.concepts}
        return {f"{key}.{kind}" for key, _ in self.concepts for kind in ("object", *axes[key])}

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


def learnable_axes(config: TrainingConfig, readings: Mapping[str, Reading]) -> tuple[str, ...]:
    """The axes of which an object gets a token, by what was read of it.

    One where nothing fits, or that a user left out, gets none: it would be invented. A free axis, of which
    nothing can be read, is learned from its own name by the anchored method only. Plain inversion knows no
    axes.
    """
    if config.method == "inversion":
        return ()
    if config.method == "paper":
        return config.axes
    free = {
        axis
        for axis in config.axes
        if axis not in readings or not (readings[axis].candidates or readings[axis].reader == "user")
    }
    fitting = {axis for axis in config.axes if axis not in free and readings[axis].value is not None}
    return tuple(a for a in config.axes if a in fitting or (a in free and config.method == "anchored"))


def learned_so_far(state: TrainingState) -> LearnedConcepts:
    """What can be used of an unfinished training.

    In the paper's phase 1 there are no intrinsic tokens yet; they are given phase 2's start values, the
    instance token's rows.
    """
    learned = []
    for key, label in state.concepts:
        instance = state.tokens.get(f"{key}.instance")
        readings = dict(state.readings.get(key, {}))
        intrinsics = {}
        for axis in learnable_axes(state.config, readings):
            name = f"{key}.{axis}"
            token = state.tokens.get(name, instance)
            assert token is not None
            intrinsics[axis] = Token(name, token.rows).detach()
        object_ = state.tokens[f"{key}.object"].detach()
        own = instance.detach() if instance else None
        learned.append(LearnedConcept(key, label, own, object_, intrinsics, readings))
    return LearnedConcepts(
        concepts=tuple(learned),
        axes=state.config.axes,
        base_name=state.base_name,
        base_fingerprint=state.base_fingerprint,
        architecture=state.architecture,
        seed=state.config.seed,
        steps=state.step,
    )


def begin(
    backbone: Backbone,
    concepts: ConceptSet,
    config: TrainingConfig,
    tokens: Sequence[Token],
    readings: Readings | None = None,
) -> TrainingState:
    """Step 0 of any method, with the tokens that it starts from."""
    return TrainingState(
        step=0,
        concepts=tuple((c.key, c.label) for c in concepts.concepts),
        tokens={token.name: token.detach() for token in tokens},
        moments={},
        generator=torch.Generator().manual_seed(config.seed).get_state(),
        config=config,
        picture=picture_hash(concepts.image),
        base_name=backbone.name,
        base_fingerprint=backbone.fingerprint,
        architecture=backbone.architecture,
        readings={key: dict(axes) for key, axes in (readings or {}).items()},
    )
