"""Which mixtures of words explain a picture's objects: `least_squares.py` on noisy copies (ours)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_core.model.backbone import Token
from ice_core.training.copies import Copies, Denoised, Denoising
from ice_core.training.least_squares import REACH, NormalEquations, moved
from ice_core.training.mixture import Mixture
from ice_core.training.slots import Slot

Weights = Mapping[str, Tensor]
"""Weights [k] of mixtures, by their tokens' names."""


class MixtureSolver:
    """Gathers what copies tell of the weights of every object's mixtures, and solves for them.

    slots: by object; beside: what its prompt says of the others. A throw-away token and what nothing was read
    of are left out of the prompts, and a mixture of a single word stays as it is. Of two opposite words one
    weight is solved for, by central differences: towards one is away from the other. kept: of `state`.
    """

    def __init__(
        self,
        denoising: Denoising,
        slots: Mapping[str, Sequence[Slot]],
        beside: Mapping[str, Sequence[str]],
        kept: Mapping[str, Tensor],
    ) -> None:
        self.denoising, self.beside = denoising, beside
        self.mixtures = {
            key: [slot.mixture for slot in of if slot.word is not None] for key, of in slots.items()
        }
        self.unknowns = {key: [way for one in of for way in _ways(one)] for key, of in self.mixtures.items()}
        self.equations = {
            key: _restored(key, len(unknowns), kept) for key, unknowns in self.unknowns.items() if unknowns
        }

    @torch.no_grad()
    def look(self, copies: Mapping[str, Copies], weights: Weights) -> Tensor | None:
        """Add what these copies tell, with mixtures as they are; their mean loss, or None, with nothing
        added, where something is not finite."""
        losses, found = [], {}
        for one in self.denoising.passes(copies):
            plain = self.denoising(one, {key: self._said(key, one[key], weights) for key in one})
            losses += [seen.loss for seen in plain.values()]
            for key, changes in self._changes(one, plain, weights).items():
                error = plain[key].target - plain[key].output
                found[key] = NormalEquations.of(changes, error, plain[key].mask)
        loss = torch.stack(losses).mean()
        if not (bool(loss.isfinite()) and all(told.finite for told in found.values())):
            return None
        for key, told in found.items():
            self.equations[key] += told
        return loss

    def _changes(
        self, copies: Mapping[str, Copies], plain: Mapping[str, Denoised], weights: Weights
    ) -> dict[str, list[Tensor]]:
        """What going towards each word changes of the output, by object."""
        changes: dict[str, list[Tensor]] = {key: [] for key in copies if key in self.equations}
        for n in range(max((len(self.unknowns[key]) for key in changes), default=0)):
            some = {key: copies[key] for key in changes if n < len(self.unknowns[key])}
            towards = {key: self.unknowns[key][n] for key in some}
            aside = self._aside(some, weights, {key: (way.mixture, way.word) for key, way in towards.items()})
            pairs = {key: (way.mixture, way.away) for key, way in towards.items() if way.away is not None}
            against = self._aside({key: some[key] for key in pairs}, weights, pairs) if pairs else {}
            for key, seen in aside.items():
                if key in against:
                    changes[key].append((seen.output - against[key].output) / (2 * REACH))
                else:
                    changes[key].append((seen.output - plain[key].output) / REACH)
        return changes

    def _aside(
        self, copies: Mapping[str, Copies], weights: Weights, towards: Mapping[str, tuple[Mixture, int]]
    ) -> dict[str, Denoised]:
        """What is predicted with a mixture of each object moved towards a word."""
        return self.denoising(
            copies, {key: self._said(key, copies[key], weights, towards[key]) for key in copies}
        )

    def _said(
        self, key: str, copies: Copies, weights: Weights, towards: tuple[Mixture, int] | None = None
    ) -> list[list[str | Token]]:
        """An object's prompt in its copies; towards: with this mixture moved towards this word."""
        said: list[str | Token] = []
        for mixture in self.mixtures[key]:
            own = weights[mixture.name]
            if towards is not None and mixture is towards[0]:
                own = own * (1 - REACH)
                own[towards[1]] += REACH
            said.append(mixture.token(own, mixture.still()))
        return [[*said, *self.beside[key]]] * len(copies.templates)

    def solve(self, weights: Weights, damping: float) -> dict[str, Tensor]:
        """The weights that the copies so far ask for, of mixtures that can move; they are forgotten then."""
        solved = {}
        for key, equations in self.equations.items():
            towards: dict[str, Tensor] = {}
            for way, share in zip(self.unknowns[key], equations.solution(damping), strict=True):
                still = torch.zeros(len(way.mixture.start), dtype=share.dtype)
                of = towards.setdefault(way.mixture.name, still)
                if way.away is not None and share < 0:
                    of[way.away] -= share
                else:
                    of[way.word] += share
            for mixture in self.mixtures[key]:
                if mixture.name in towards:
                    shares = moved(weights[mixture.name], towards[mixture.name])
                    solved[mixture.name] = mixture.one_of_each_pair(shares)
            self.equations[key] = NormalEquations.empty(len(equations.slope))
        return solved

    def state(self) -> dict[str, Tensor]:
        """What has been gathered since the last solution, to go on from."""
        return {
            f"{name}/{key}": getattr(equations, name)
            for key, equations in self.equations.items()
            for name in ("curvature", "slope")
        }


@dataclass(frozen=True)
class _Way:
    """One unknown: towards a word of a mixture, or, with `away`, to one of a pair or to the other."""

    mixture: Mixture
    word: int
    away: int | None = None


def _ways(mixture: Mixture) -> list[_Way]:
    """What is solved for: nothing in a mixture of one word."""
    if len(mixture.start) < 2:
        return []
    paired = {word for pair in mixture.opposites for word in pair}
    words = [word for word in range(len(mixture.start)) if word not in paired]
    alone = [_Way(mixture, word) for word in words] if len(words) > 1 else []
    return alone + [_Way(mixture, high, low) for low, high in mixture.opposites]


def _restored(key: str, unknowns: int, kept: Mapping[str, Tensor]) -> NormalEquations:
    if f"curvature/{key}" not in kept:
        return NormalEquations.empty(unknowns)
    return NormalEquations(kept[f"curvature/{key}"].clone(), kept[f"slope/{key}"].clone())
