"""Which mixtures of words explain a picture's objects: `least_squares.py` on noisy copies (ours)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ice_core.model.backbone import Token
from ice_core.training.copies import Copies, Denoised, Denoising
from ice_core.training.least_squares import REACH, NormalEquations, moved
from ice_core.training.slots import Slot

Weights = Mapping[str, Tensor]
"""Weights [k] of mixtures, by their tokens' names."""


class MixtureSolver:
    """Gathers what copies tell of the weights of every object's mixtures, and solves for them.

    slots: by object; beside: what its prompt says of the others. A throw-away token and what nothing was read
    of are left out of the prompts, and a mixture of a single word stays as it is. kept: of `state`.
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
        self.unknowns = {
            key: [(one, word) for one in of if len(one.start) > 1 for word in range(len(one.start))]
            for key, of in self.mixtures.items()
        }
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
            aside = self.denoising(some, {key: self._said(key, some[key], weights, n) for key in some})
            for key, seen in aside.items():
                changes[key].append((seen.output - plain[key].output) / REACH)
        return changes

    def _said(
        self, key: str, copies: Copies, weights: Weights, n: int | None = None
    ) -> list[list[str | Token]]:
        """An object's prompt in its copies; n: with a mixture moved towards the word of this unknown."""
        said: list[str | Token] = []
        towards, word = (None, 0) if n is None else self.unknowns[key][n]
        for mixture in self.mixtures[key]:
            own = weights[mixture.name]
            if mixture is towards:
                own = own * (1 - REACH)
                own[word] += REACH
            said.append(mixture.token(own, mixture.still()))
        return [[*said, *self.beside[key]]] * len(copies.templates)

    def solve(self, weights: Weights, damping: float) -> dict[str, Tensor]:
        """The weights that the copies so far ask for, of mixtures that can move; they are forgotten then."""
        solved = {}
        for key, equations in self.equations.items():
            solution, at = equations.solution(damping), 0
            for mixture in (one for one in self.mixtures[key] if len(one.start) > 1):
                own = slice(at, at + len(mixture.start))
                solved[mixture.name] = moved(weights[mixture.name], solution[own])
                at = own.stop
            self.equations[key] = NormalEquations.empty(len(equations.slope))
        return solved

    def state(self) -> dict[str, Tensor]:
        """What has been gathered since the last solution, to go on from."""
        return {
            f"{name}/{key}": getattr(equations, name)
            for key, equations in self.equations.items()
            for name in ("curvature", "slope")
        }


def _restored(key: str, unknowns: int, kept: Mapping[str, Tensor]) -> NormalEquations:
    if f"curvature/{key}" not in kept:
        return NormalEquations.empty(unknowns)
    return NormalEquations(kept[f"curvature/{key}"].clone(), kept[f"slope/{key}"].clone())
