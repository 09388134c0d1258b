"""The anchored method: tokens that start at the words read of an object and stay on their own axis (ours).

Every token is a mixture of the word that was read and of its neighbors, whose weights are solved for first
(`least_squares.py`), and a residual that keeps out of the other axes' words (`mixture.py`). While residuals
are learned, each slot of the prompt holds, by chance, its token or its word, so that no token leans on
another and each works in a sentence of words. The picture's other objects are named beside it by their words:
a prompt that is silent about them leaves the denoiser to guess which thing is meant, and tokens then learn to
say that instead of a shade. Where it is asked for, an anchor on pictures of other things holds tokens to
their words there (`off_axis.py`). A throw-away token takes in what is neither (BiCo, arXiv 2512.09824). Rates
fall to nothing along half a cosine (Loshchilov and Hutter, arXiv 1608.03983). States are compared on a fixed
set of noises, timesteps and templates, from the solved mixtures on; the best is kept, and training ends when
none has got better for a while (DVAR, arXiv 2302.04841).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ice_core.concepts import ConceptSet, Readings
from ice_core.model.backbone import Backbone, Prompt, Token
from ice_core.model.noising import draw_noise, fill, noisy_and_target
from ice_core.training.config import TrainingConfig
from ice_core.training.descent import learning, moments_of, restore_moments
from ice_core.training.least_squares import REACH, NormalEquations, moved
from ice_core.training.losses import masked_denoising_loss
from ice_core.training.mixture import Mixture
from ice_core.training.off_axis import Foreign, draw_foreign, off_axis_loss
from ice_core.training.scene import Scene
from ice_core.training.session import StartedSession
from ice_core.training.slots import Slot, slots_of, words_beside
from ice_core.training.state import TrainingState, begin

_AVERAGE_DECAY = 0.9
"""Of the moving average of what is learned, per step: single steps follow single noises."""
_EVALUATION_SEED = 1
"""Added to the training's seed, so that the fixed set is none of the noises that are learned from."""

_WEIGHTS = "/weights"

Values = dict[str, Tensor]


@dataclass(frozen=True)
class _Copies:
    """Noisy copies of one object. mirrored, timesteps: [B]; noise: [B, C, h, w]; templates: B of them."""

    mirrored: Tensor
    timesteps: Tensor
    noise: Tensor
    templates: tuple[str, ...]


def begin_anchored(
    backbone: Backbone, concepts: ConceptSet, config: TrainingConfig, readings: Readings
) -> TrainingState:
    """Step 0: every token is its mixture."""
    tokens = [
        slot.mixture.token(slot.mixture.start, _zeros(slot.mixture))
        for concept in concepts.concepts
        for slot in slots_of(backbone, concept.key, concept.label, config, readings)
    ]
    return begin(backbone, concepts, config, tokens, readings)


def _zeros(mixture: Mixture) -> dict[str, Tensor]:
    return {encoder: torch.zeros_like(words[0]) for encoder, words in mixture.words.items()}


class AnchoredSession(StartedSession):
    """All objects learn in every step, each from its own noisy copies."""

    def __init__(
        self, backbone: Backbone, scene: Scene, config: TrainingConfig, state: TrainingState
    ) -> None:
        super().__init__(backbone, scene, config, state)
        self.slots = {
            s.key: slots_of(backbone, s.key, s.label, config, state.readings) for s in scene.subjects
        }
        largest = sorted(scene.subjects, key=lambda s: (-float(s.mask[0].sum()), s.key))
        by_size = {s.key: self.slots[s.key] for s in largest} if config.anchored.beside else {}
        self.beside = {key: words_beside(backbone, key, by_size, config.templates) for key in self.slots}
        self.values = self._kept("values") or self._start()
        self.average = self._kept("average") or _copy(self.values)
        self.best = self._kept("best") or _copy(self.values)
        self.record = {
            s.key: state.extra.get(f"record/{s.key}", torch.tensor([float("inf"), 0.0])).clone()
            for s in scene.subjects
        }
        for name in self._residuals():
            self.values[name].requires_grad_()
        self.equations = {
            s.key: self._equations_of(s.key, state.extra) for s in scene.subjects if self._unknowns(s.key)
        }
        self.optimizer = self._adam()
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        moments = {k.removeprefix("moments/"): v for k, v in state.extra.items() if k.startswith("moments/")}
        restore_moments(self.optimizer, self.values, moments)
        self.foreign = self._foreign()
        self.clock = time.monotonic()
        self.fixed = self._fixed_set()
        if self.fixed and self.done == self.config.switch == 0:
            self._compare()

    @property
    def phase(self) -> int:
        """1 while mixtures are solved for."""
        return 1 if self.done <= self.config.switch else 2

    def _start(self) -> Values:
        values: Values = {}
        for slot in self._every_slot():
            values[f"{slot.mixture.name}{_WEIGHTS}"] = slot.mixture.start.clone()
            for encoder, zeros in _zeros(slot.mixture).items():
                values[f"{slot.mixture.name}/{encoder}"] = zeros
        return values

    def _every_slot(self) -> list[Slot]:
        return [slot for slots in self.slots.values() for slot in slots]

    def _kept(self, kind: str) -> Values:
        start = f"{kind}/"
        extra = self.started.extra.items()
        return {k.removeprefix(start): v.clone().to(self.device) for k, v in extra if k.startswith(start)}

    def _residuals(self) -> list[str]:
        return [name for name in self.values if not name.endswith(_WEIGHTS)]

    def _adam(self) -> torch.optim.Adam:
        residuals = [self.values[name] for name in self._residuals()]
        # A direction of length 1 has entries of 1 / sqrt(D), and a step of Adam moves every entry alike.
        rate = self.config.anchored.residual_rate
        groups = [{"params": [v], "lr": rate / v.shape[-1] ** 0.5} for v in residuals]
        return torch.optim.Adam(groups, betas=(0.9, 0.99), foreach=False)

    def _foreign(self) -> dict[str, list[Foreign]]:
        """Pictures for the off-axis anchor, by object."""
        if not self.config.anchored.off_axis:
            return {}
        words = {
            key: {s.mixture.name: s.word for s in slots[:-1] if s.word is not None}
            for key, slots in self.slots.items()
        }
        labels = {subject.key: subject.label for subject in self.scene.subjects}
        count = self.config.anchored.off_axis_pictures
        drawn = draw_foreign(self.backbone, words, labels, count, self.config.seed)
        return {key: [one for one in drawn if one.key == key] for key in words if words[key]}

    def _off_axis(self, tokens: Mapping[str, Token]) -> Tensor:
        """The off-axis anchor of one property of every object."""
        rng = self.generator
        chosen = [of[int(torch.randint(len(of), (), generator=rng))] for of in self.foreign.values()]
        anchored, last = self.config.anchored, len(self.alphas) - 1
        shares = anchored.earliest + (anchored.latest - anchored.earliest) * torch.rand(
            len(chosen), generator=rng
        )
        noise = draw_noise((len(chosen), *chosen[0].latents.shape), 0, rng).to(self.device)
        timesteps = (shares * last).round().long().to(self.device)
        return off_axis_loss(self.backbone, chosen, tokens, timesteps, noise, self.alphas)

    def _fixed_set(self) -> dict[str, _Copies]:
        count = self.config.anchored.evaluations
        rng = torch.Generator().manual_seed(self.config.seed + _EVALUATION_SEED)
        return {s.key: self._draw_copies(count, rng) for s in self.scene.subjects} if count else {}

    def _draw_copies(self, count: int, rng: torch.Generator) -> _Copies:
        """Timesteps are spread evenly over their range, one in each of `count` parts of it."""
        mirrored = (torch.rand(count, generator=rng) < self.config.flip_probability).long()
        places = (torch.arange(count) + torch.rand(count, generator=rng)) / count
        anchored, last = self.config.anchored, len(self.alphas) - 1
        shares = anchored.earliest + (anchored.latest - anchored.earliest) * places
        timesteps = (shares * last).round().long()
        noise = draw_noise((count, *self.scene.latents.shape[1:]), 0, rng)
        templates = self.config.templates
        picked = torch.randint(len(templates), (count,), generator=rng).tolist()
        return _Copies(mirrored, timesteps, noise, tuple(templates[i] for i in picked))

    def _tokens(self, values: Values) -> dict[str, Token]:
        return {slot.mixture.name: _token(slot.mixture, values) for slot in self._every_slot()}

    def advance(self) -> dict[str, float] | None:
        """One step; its losses, or None with nothing changed when they are not finite."""
        before, anchored = self.generator.get_state(), self.config.anchored
        copies = {s.key: self._draw_copies(anchored.batch, self.generator) for s in self.scene.subjects}
        solving = self.done < self.config.switch
        terms = self._look(copies) if solving else self._descend(copies)
        if terms is None:
            self.generator.set_state(before)
            return None
        self.done += 1
        if anchored.budget and time.monotonic() - self.clock > anchored.budget:
            self.settled = True
        if solving and (self.settled or self.done in self._turns()):
            self._solve()
        for name in self._residuals():
            self.average[name].lerp_(self.values[name].detach(), 1 - _AVERAGE_DECAY)
        self._stop_or_go_on()
        values = torch.stack(list(terms.values())).detach().tolist()
        return dict(zip(terms, values, strict=True))

    def _turns(self) -> set[int]:
        """Steps after which mixtures move: in two goes, for what a change does is not quite linear."""
        return {math.ceil(self.config.switch / 2), self.config.switch}

    def _unknowns(self, key: str) -> list[tuple[Mixture, int]]:
        """The words of an object's mixtures: each is a way that a mixture may go."""
        return [
            (slot.mixture, word)
            for slot in self.slots[key]
            if slot.word is not None and len(slot.mixture.start) > 1
            for word in range(len(slot.mixture.start))
        ]

    def _equations_of(self, key: str, extra: Mapping[str, Tensor]) -> NormalEquations:
        """As far as they had been summed up when training stopped."""
        if f"curvature/{key}" not in extra:
            return NormalEquations.empty(len(self._unknowns(key)))
        return NormalEquations(extra[f"curvature/{key}"].clone(), extra[f"slope/{key}"].clone())

    @torch.no_grad()
    def _look(self, copies: Mapping[str, _Copies]) -> dict[str, Tensor] | None:
        """Add to the equations what these copies tell of the mixtures; None where it is not finite."""
        losses, found = [], {}
        for one in self._passes(copies):
            prompts = {key: self._nearer(key) for key in one}
            plain = self._denoised(one, prompts)
            losses += [masked_denoising_loss(*seen) for seen in plain.values()]
            changes: dict[str, list[Tensor]] = {key: [] for key in one}
            for n in range(max((len(self._unknowns(key)) for key in one), default=0)):
                some = {key: copy for key, copy in one.items() if n < len(self._unknowns(key))}
                aside = self._denoised(some, {key: self._nearer(key, n) for key in some})
                for key, (output, _, _) in aside.items():
                    changes[key].append((output - plain[key][0]) / REACH)
            for key in (key for key in one if changes[key]):
                output, target, mask = plain[key]
                found[key] = NormalEquations.of(changes[key], target - output, mask)
        loss = torch.stack(losses).mean()
        if not (bool(loss.isfinite()) and all(told.finite for told in found.values())):
            return None
        for key, told in found.items():
            self.equations[key] += told
        return {"total": loss, "denoising": loss, "drift": torch.zeros_like(loss)}

    def _nearer(self, key: str, n: int | None = None) -> list[list[str | Token]]:
        """An object's prompt in all its copies, without the throw-away token; n: a mixture is moved towards
        this one of its words."""
        aside = dict(self.values)
        if n is not None:
            mixture, word = self._unknowns(key)[n]
            name = f"{mixture.name}{_WEIGHTS}"
            aside[name] = self.values[name] * (1 - REACH)
            aside[name][word] += REACH
        said = [_token(slot.mixture, aside) for slot in self.slots[key] if slot.word is not None]
        return [[*said, *self.beside[key]]] * self.config.anchored.batch

    def _solve(self) -> None:
        """Move the mixtures to where the equations say, and begin new ones."""
        for key, equations in self.equations.items():
            solution = equations.solution(self.config.anchored.damping)
            unknowns = self._unknowns(key)
            for mixture in {m.name: m for m, _ in unknowns}.values():
                own = torch.tensor([n for n, (m, _) in enumerate(unknowns) if m.name == mixture.name])
                name = f"{mixture.name}{_WEIGHTS}"
                self.values[name] = moved(self.values[name], solution[own])
                self.average[name] = self.values[name].clone()
            self.equations[key] = NormalEquations.empty(len(unknowns))

    def _descend(self, copies: Mapping[str, _Copies]) -> dict[str, Tensor] | None:
        """Move the residuals by one step of Adam; None, with nothing moved, where it is not finite."""
        anchored, config = self.config.anchored, self.config
        learned = [self.values[name] for name in self._residuals()]
        gradients: list[Tensor | None] = [None] * len(learned)
        total = torch.zeros((), device=self.device)
        losses: dict[str, Tensor] = {}
        held: dict[str, Tensor] = {}
        passes = self._passes(copies)
        for one in passes:
            # Once more for each pass: its graph goes with its gradients.
            tokens = self._tokens(self.values)
            said = {key: [self._said(key, tokens) for _ in range(anchored.batch)] for key in one}
            own = self._losses(one, said)
            losses |= own
            loss = sum(own.values(), torch.zeros((), device=self.device))
            if one is passes[-1]:
                held["drift"] = torch.stack([self._drift(slot.mixture) for slot in self._every_slot()]).sum()
                loss = loss + anchored.keep_close * held["drift"]
                if self.foreign:
                    held["off_axis"] = self._off_axis(tokens)
                    loss = loss + anchored.off_axis * held["off_axis"]
            found = torch.autograd.grad(loss, learned, allow_unused=True)
            gradients = [_sum(a, b) for a, b in zip(gradients, found, strict=True)]
            total = total + loss.detach()
        if not all(bool(torch.isfinite(x).all()) for x in (total, *(g for g in gradients if g is not None))):
            return None
        for value, gradient in zip(learned, gradients, strict=True):
            value.grad = gradient
        along = (self.done - config.switch) / (config.steps - config.switch)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * along)) / 2
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        denoising = torch.stack(list(losses.values())).mean()
        return {"total": total / len(losses), "denoising": denoising, **held}

    def _passes(self, copies: Mapping[str, _Copies]) -> list[Mapping[str, _Copies]]:
        """Of which objects the denoiser works together: of all, or of one after the other to save memory."""
        return [{key: one} for key, one in copies.items()] if self.backbone.saves_memory else [copies]

    def _said(self, key: str, tokens: Mapping[str, Token]) -> list[str | Token]:
        """An object's prompt, with words in some of the places, and the other objects beside it."""
        parts: list[str | Token] = []
        for slot in self.slots[key]:
            replaced = float(torch.rand((), generator=self.generator)) < self.config.anchored.substitution
            if not replaced:
                parts.append(tokens[slot.mixture.name])
            elif slot.word is not None:
                parts.append(slot.word)
        return parts + self.beside[key]

    def _losses(
        self, copies: Mapping[str, _Copies], said: Mapping[str, Sequence[Sequence[str | Token]]]
    ) -> dict[str, Tensor]:
        """The denoising loss of each object inside its mask, in one pass of the denoiser."""
        seen = self._denoised(copies, said)
        return {key: masked_denoising_loss(*one) for key, one in seen.items()}

    def _denoised(
        self, copies: Mapping[str, _Copies], said: Mapping[str, Sequence[Sequence[str | Token]]]
    ) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Of each object, output and target [B, C, h, w] and mask [B, 1, h, w]; one pass of the denoiser."""
        subjects = [s for s in self.scene.subjects if s.key in copies]
        prompts: list[Prompt] = []
        for s in subjects:
            prompts += [fill(t, parts) for t, parts in zip(copies[s.key].templates, said[s.key], strict=True)]
        drawn = [copies[s.key] for s in subjects]
        mirrored, timesteps, noise = (
            torch.cat([getattr(one, name) for one in drawn]).to(self.device)
            for name in ("mirrored", "timesteps", "noise")
        )
        signal = self.alphas[timesteps]
        noisy, target = noisy_and_target(
            self.scene.latents[mirrored], noise, signal, self.backbone.prediction
        )
        output = self.backbone.predict(noisy, timesteps, self.backbone.encode_prompts(prompts)).float()
        seen, at = {}, 0
        for s, one in zip(subjects, drawn, strict=True):
            span = slice(at, at + len(one.timesteps))
            seen[s.key] = output[span], target[span], s.mask[mirrored[span]]
            at = span.stop
        return seen

    def _drift(self, mixture: Mixture) -> Tensor:
        """Squared length of a token's residuals, mean over its rows."""
        residuals = [mixture.allowed(e, self.values[f"{mixture.name}/{e}"]) for e in mixture.words]
        return torch.stack([r.square().sum(-1).mean() for r in residuals]).sum()

    def _stop_or_go_on(self) -> None:
        anchored, config = self.config.anchored, self.config
        last = self.settled or self.done == config.steps
        # A mixture is solved for from more noises than the fixed set has, which would say less of it.
        solving = self.done < config.switch
        if solving or not self.fixed:
            self.best = _copy(self.average)
        elif last or self.done == config.switch or self.done % anchored.evaluate_every == 0:
            self._compare()
            self.settled |= all(float(r[1]) >= anchored.patience for r in self.record.values())

    @torch.no_grad()
    def _compare(self) -> None:
        """Keep, of each object, the better of the average as it is and the best so far."""
        tokens = self._tokens(self.average)
        said: dict[str, list[list[str | Token]]] = {}
        for key, one in self.fixed.items():
            parts = [tokens[slot.mixture.name] for slot in self.slots[key]]
            said[key] = [[*parts, *self.beside[key]]] * len(one.templates)
        losses = [self._losses(one, said) for one in self._passes(self.fixed)]
        for key, loss in (pair for of_pass in losses for pair in of_pass.items()):
            record = self.record[key]
            if float(loss) < float(record[0]):
                record[0], record[1] = float(loss), 0
                own = {f"{slot.mixture.name}/" for slot in self.slots[key]}
                for name, value in self.average.items():
                    if name[: name.rindex("/") + 1] in own:
                        self.best[name] = value.clone()
            else:
                record[1] += 1

    def state(self) -> TrainingState:
        """A copy of where training stands; its tokens are the best so far."""
        with learning(), torch.no_grad():
            extra = {f"record/{key}": record.clone() for key, record in self.record.items()}
            groups = {"values": self.values, "average": self.average, "best": self.best}
            extra |= {
                f"{kind}/{name}": value.detach().cpu().clone()
                for kind, values in groups.items()
                for name, value in values.items()
            }
            for key, equations in self.equations.items():
                extra |= {f"curvature/{key}": equations.curvature, f"slope/{key}": equations.slope}
            moments = moments_of(self.optimizer, self.values)
            extra |= {f"moments/{name}": value for name, value in moments.items()}
            tokens = self._tokens(self.best)
            return replace(
                self.started,
                step=self.done,
                tokens={name: token.detach() for name, token in tokens.items()},
                generator=self.generator.get_state(),
                extra=extra,
                settled=self.settled,
            )


def _token(mixture: Mixture, values: Values) -> Token:
    residuals = {encoder: values[f"{mixture.name}/{encoder}"] for encoder in mixture.words}
    return mixture.token(values[f"{mixture.name}{_WEIGHTS}"], residuals)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _copy(values: Mapping[str, Tensor]) -> Values:
    return {name: value.detach().clone() for name, value in values.items()}
