"""The anchored method: tokens that start at the words read of an object and stay on their own axis (ours).

Every token is a mixture of the word that was read, of its neighbors and of a word for its degree (narrow or
wide), whose weights are solved for first (`solving.py`), and a residual that keeps out of the other axes'
words (`mixture.py`). While residuals are learned, each slot of the prompt holds, by chance, its token or its
word, so that no token leans on another and each works in a sentence of words. The picture's other objects are
named beside it by their words: a prompt that is silent about them leaves the denoiser to guess which thing is
meant, and tokens then learn to say that instead of a shade. Where it is asked for, an anchor on pictures of
other things holds tokens to their words there (`off_axis.py`). A throw-away token takes in what is neither
(BiCo, arXiv 2512.09824). Rates fall to nothing along half a cosine (Loshchilov and Hutter, arXiv 1608.03983).
States are compared on a fixed set of noises, timesteps and templates, from the solved mixtures on; the best
is kept, and training ends when none has got better for a while (DVAR, arXiv 2302.04841).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ice_core.concepts import ConceptSet, Readings
from ice_core.model.backbone import Backbone, Token
from ice_core.model.noising import draw_noise
from ice_core.training.config import TrainingConfig
from ice_core.training.copies import Copies, Denoising
from ice_core.training.descent import learning, moments_of, restore_moments
from ice_core.training.mixture import Mixture
from ice_core.training.off_axis import Foreign, draw_foreign, off_axis_loss
from ice_core.training.scene import Scene
from ice_core.training.session import StartedSession
from ice_core.training.slots import Slot, slots_of, words_beside
from ice_core.training.solving import MixtureSolver
from ice_core.training.state import TrainingState, begin

_AVERAGE_DECAY = 0.9
"""Of the moving average of what is learned, per step: single steps follow single noises."""
_EVALUATION_SEED = 1
"""Added to the training's seed, so that the fixed set is none of the noises that are learned from."""

_WEIGHTS = "/weights"

Values = dict[str, Tensor]


def begin_anchored(
    backbone: Backbone, concepts: ConceptSet, config: TrainingConfig, readings: Readings
) -> TrainingState:
    """Step 0: every token is its mixture."""
    tokens = [
        slot.mixture.token(slot.mixture.start, slot.mixture.still())
        for concept in concepts.concepts
        for slot in slots_of(backbone, concept.key, concept.label, config, readings)
    ]
    return begin(backbone, concepts, config, tokens, readings)


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
        self.denoising = Denoising(backbone, scene, config, self.alphas)
        self.solver = MixtureSolver(self.denoising, self.slots, self.beside, state.extra)
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
            for encoder, zeros in slot.mixture.still().items():
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

    def _fixed_set(self) -> dict[str, Copies]:
        count = self.config.anchored.evaluations
        rng = torch.Generator().manual_seed(self.config.seed + _EVALUATION_SEED)
        return self.denoising.draw(count, rng) if count else {}

    def _tokens(self, values: Values) -> dict[str, Token]:
        return {slot.mixture.name: _token(slot.mixture, values) for slot in self._every_slot()}

    def advance(self) -> dict[str, float] | None:
        """One step; its losses, or None with nothing changed when they are not finite."""
        before, anchored = self.generator.get_state(), self.config.anchored
        copies = self.denoising.draw(anchored.batch, self.generator)
        solving = self.done < self.config.switch
        terms = self._look(copies) if solving else self._descend(copies)
        if terms is None:
            self.generator.set_state(before)
            return None
        self.done += 1
        if anchored.budget and time.monotonic() - self.clock > anchored.budget:
            self.settled = True
        if solving and (self.settled or self.done in self._turns()):
            for name, solved in self.solver.solve(self._weights(), anchored.damping).items():
                self.values[f"{name}{_WEIGHTS}"] = solved
                self.average[f"{name}{_WEIGHTS}"] = solved.clone()
        for name in self._residuals():
            self.average[name].lerp_(self.values[name].detach(), 1 - _AVERAGE_DECAY)
        self._stop_or_go_on()
        values = torch.stack(list(terms.values())).detach().tolist()
        return dict(zip(terms, values, strict=True))

    def _turns(self) -> set[int]:
        """Steps after which mixtures move: in two goes, for what a change does is not quite linear."""
        return {math.ceil(self.config.switch / 2), self.config.switch}

    def _weights(self) -> Values:
        return {k.removesuffix(_WEIGHTS): v for k, v in self.values.items() if k.endswith(_WEIGHTS)}

    def _look(self, copies: Mapping[str, Copies]) -> dict[str, Tensor] | None:
        """Gather what the copies tell of the mixtures; None, with nothing gathered, where not finite."""
        loss = self.solver.look(copies, self._weights())
        return None if loss is None else {"total": loss, "denoising": loss, "drift": torch.zeros_like(loss)}

    def _descend(self, copies: Mapping[str, Copies]) -> dict[str, Tensor] | None:
        """Move the residuals by one step of Adam; None, with nothing moved, where it is not finite."""
        anchored, config = self.config.anchored, self.config
        learned = [self.values[name] for name in self._residuals()]
        gradients: list[Tensor | None] = [None] * len(learned)
        total = torch.zeros((), device=self.device)
        losses: dict[str, Tensor] = {}
        held: dict[str, Tensor] = {}
        passes = self.denoising.passes(copies)
        for one in passes:
            # Once more for each pass: its graph goes with its gradients.
            tokens = self._tokens(self.values)
            said = {key: [self._said(key, tokens) for _ in range(anchored.batch)] for key in one}
            own = {key: seen.loss for key, seen in self.denoising(one, said).items()}
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
        seen = [self.denoising(one, said) for one in self.denoising.passes(self.fixed)]
        for key, loss in ((key, float(one.loss)) for of_pass in seen for key, one in of_pass.items()):
            record = self.record[key]
            if loss < float(record[0]):
                record[0], record[1] = loss, 0
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
            extra |= self.solver.state()
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
