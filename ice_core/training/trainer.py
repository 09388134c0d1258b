"""Stage Two as a stream of events, by any of its methods. Only the rows of new tokens are learned."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

from ice_core.concepts import ConceptSet, Readings
from ice_core.errors import IceError
from ice_core.model.backbone import Backbone
from ice_core.training.anchored import AnchoredSession, begin_anchored
from ice_core.training.config import Method, TrainingConfig
from ice_core.training.descent import learning
from ice_core.training.events import Finished, Snapshot, StepDone, TrainingEvent
from ice_core.training.inversion import InversionSession, begin_inversion
from ice_core.training.paper import PaperSession, begin_paper
from ice_core.training.scene import Scene, check_concepts, prepare
from ice_core.training.session import Session
from ice_core.training.state import TrainingState, learned_so_far
from ice_core.training.words import begin_words

_BEGINNINGS: Mapping[Method, Callable[[Backbone, ConceptSet, TrainingConfig, Readings], TrainingState]] = {
    "words": begin_words,
    "anchored": begin_anchored,
    "paper": begin_paper,
    "inversion": begin_inversion,
}
_SESSIONS: Mapping[Method, Callable[[Backbone, Scene, TrainingConfig, TrainingState], Session]] = {
    "anchored": AnchoredSession,
    "paper": PaperSession,
    "inversion": InversionSession,
}


def train(
    backbone: Backbone,
    concepts: ConceptSet,
    config: TrainingConfig | None = None,
    readings: Readings | None = None,
    resume: TrainingState | None = None,
) -> Generator[TrainingEvent, None, None]:
    """Learn the tokens of every object in a picture.

    readings: what the objects are like, by key and axis; the methods words and anchored start from them.
    Yields a StepDone per step, a Snapshot every `config.snapshot_every` steps, between the phases and after
    the last step, then Finished. Not asking for the next event, or closing the iterator, cancels and leaves
    nothing behind. With `resume`, whose readings are then taken, the remaining steps give the numbers of an
    uninterrupted run.

    Input is checked when this is called; models work when events are asked for. Works inside
    `torch.inference_mode()`. Raises IceError for input that cannot be learned from and when a loss is not
    finite; in that case a Snapshot of the last good state comes first, so that nothing is lost.
    """
    config = config or TrainingConfig()
    check_concepts(backbone, concepts)
    config.check_axes(backbone)
    _check_readings(concepts, readings or {})
    if resume is not None:
        resume.check(backbone, concepts, config)
    return _events(backbone, concepts, config, readings or {}, resume)


def _check_readings(concepts: ConceptSet, readings: Readings) -> None:
    keys = [concept.key for concept in concepts.concepts]
    for key in readings:
        if key not in keys:
            raise IceError(f"there are readings of {key!r}, but the objects are {', '.join(keys)}")


def _events(
    backbone: Backbone,
    concepts: ConceptSet,
    config: TrainingConfig,
    readings: Readings,
    resume: TrainingState | None,
) -> Generator[TrainingEvent, None, None]:
    with learning():
        state = _BEGINNINGS[config.method](backbone, concepts, config, readings) if resume is None else resume
        if state.finished:
            session: Session | None = None
        else:
            scene = prepare(backbone, concepts, config)
            session = _SESSIONS[config.method](backbone, scene, config, state)
    if session is None:
        if resume is None:
            yield Snapshot(state)
        yield Finished(learned_so_far(state), state)
        return
    for step in range(state.step + 1, config.steps + 1):
        with learning():
            losses = session.advance()
        if losses is None:
            yield Snapshot(session.state())
            raise IceError(
                f"training diverged at step {step} of {config.steps}: lower the learning rate "
                f"(now {config.learning_rate:g}) or change the seed; the state after step {step - 1} is good"
            )
        yield StepDone(step, config.steps, session.phase, losses)
        over = session.settled or step == config.steps
        if over or step == config.switch or step % config.snapshot_every == 0:
            yield Snapshot(session.state())
        if over:
            break
    last = session.state()
    yield Finished(learned_so_far(last), last)
