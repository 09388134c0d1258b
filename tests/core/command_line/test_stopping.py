"""Signals: whatever ends a run, and however often, what was learned is kept and the message is true."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from extractions import MARKED

from ice_core.command_line.cli import main
from ice_core.command_line.stopping import stopped_once
from ice_core.files import embeddings
from ice_core.files.concept_set import load_concept_set
from ice_core.files.embeddings import load_concepts
from ice_core.run import training
from ice_core.training.events import StepDone


@pytest.fixture(autouse=True)
def signals_count() -> Iterator[None]:
    """As in a shell's foreground: in the background SIGINT is ignored, and then stays ignored."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def signal_at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sends this process a signal after a step of training."""

    def arrange(number: int, step: int) -> None:
        def train(*arguments: object, **named: object) -> object:
            for event in real(*arguments, **named):  # type: ignore[arg-type]
                yield event
                if isinstance(event, StepDone) and event.step == step:
                    signal.raise_signal(number)

        real = training.train
        monkeypatch.setattr(training, "train", train)

    return arrange


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_that_come_while_saving_do_not_cost_what_was_learned(
    files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    signal_at_step: Callable[[int, int], None],
    number: int,
    code: int,
    word: str,
) -> None:
    save = embeddings.save_token

    def impatient(*arguments: object, **named: object) -> Path:
        signal.raise_signal(number)
        return save(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(embeddings, "save_token", impatient)
    signal_at_step(number, 21)
    before = signal.getsignal(number)
    assert main([*MARKED[:-1], "30", "--out", "out"]) == code
    err = capsys.readouterr().err
    assert f"ice: {word}; what was learned so far is in" in err
    assert "--resume" in err
    learned = load_concepts(files / "out")
    assert learned.steps == 20
    assert len(learned.tokens) == 10
    assert len(list((files / "out" / "embeddings").iterdir())) == 10 + len(learned.concepts)
    assert signal.getsignal(number) == before
    everything = load_concept_set(files / "out" / "concepts.safetensors")
    assert everything.learned.tokens.keys() == learned.tokens.keys()
    assert everything.learned.steps == 20
    assert [concept.key for concept in everything.found] == [concept.key for concept in learned.concepts]
    assert everything.picture is not None
    assert everything.sheet is None, "nothing was drawn yet"


def test_a_signal_before_anything_is_found_says_that_nothing_was_written(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ice_core.run import finding

    monkeypatch.setattr(finding, "concepts_from_masks", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert main([*MARKED, "--out", "out"]) == 143
    assert "ice: terminated; nothing was written" in capsys.readouterr().err
    assert not (files / "out").exists()


def test_a_signal_counts_again_when_the_first_one_got_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with stopped_once() as received:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        clock[0] = 20
        signal.raise_signal(signal.SIGINT)
        clock[0] = 60
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGINT, signal.SIGINT, signal.SIGTERM]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopped_once() as received:
        signal.raise_signal(signal.SIGINT)
    assert received == []
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
