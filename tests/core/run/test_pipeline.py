"""The whole method on one picture: files, interruption, resuming; the model is a fake."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from extractions import SETTINGS, Named, Names, progress_to, scene
from fakes import FakeBackbone
from PIL import Image
from safetensors.torch import load_file

from ice_core.errors import IceError
from ice_core.files.concept_set import load_concept_set
from ice_core.files.embeddings import load_concepts
from ice_core.localization.config import LocalizationConfig
from ice_core.run.events import Drawn, Found, Preview, Progress, Read, RunEvent, Trained, Written
from ice_core.run.pipeline import extract, finish, resume
from ice_core.run.settings import ExtractionSettings


def run(out: Path, listener: Callable[[Progress], None] | None = None) -> None:
    image, masks = scene()
    events = extract(FakeBackbone(), None, image, out, SETTINGS, ["ball", "ball"], masks, "squares")
    finish(events, progress_to(listener))


def test_an_extraction_writes_everything_and_the_report_says_where(tmp_path: Path) -> None:
    seen: list[Progress] = []
    run(tmp_path / "out", seen.append)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [c["key"] for c in report["concepts"]] == ["ball", "ball-2"]
    first = report["concepts"][0]
    assert (first["label"], first["score"]) == ("ball", 1)
    left, top, right, bottom = first["box"]
    assert abs(left - 16) + abs(top - 16) + abs(right - 64) + abs(bottom - 64) <= 8
    assert first["area"] == pytest.approx(48 * 48, rel=0.1)
    assert first["prompts"]["color"] == "a photo of a {ball.color} ball"
    assert first["prompts"]["color on a cup"] == "a photo of a {ball.color} cup"
    together = "the ball-2, in the ball's color and material"
    assert first["prompts"][together] == "a photo of a {ball.color} {ball.material} {ball-2.object}"
    assert report["image_size"] == [160, 96]
    assert report["working_size"] == [80, 48]
    assert set(report["seconds"]) == {"localization", "reading", "training", "pictures", "writing"}
    assert report["peak_memory_mib"] is None or report["peak_memory_mib"] > 50
    assert report["settings"]["training"]["steps"] == 8
    named = [*report["pictures"].values()]
    for concept in report["concepts"]:
        named += [concept["mask"], concept["row"], *concept["embeddings"].values()]
    assert len(named) == 4 + 2 * (2 + 5)
    for name in named:
        assert (tmp_path / "out" / name).stat().st_size > 50, name
    assert not list(tmp_path.rglob("*.part"))
    with Image.open(tmp_path / "out" / "masks" / "ball.png") as mask:
        assert mask.size == (160, 96)
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages == [
        "finding objects", "reading properties", "learning tokens", "drawing pictures", "writing files"
    ]  # fmt: skip
    assert max(p.done for p in seen if p.stage == "learning tokens") == 8


def test_the_run_s_concept_set_holds_all_of_it(tmp_path: Path) -> None:
    run(tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    every = load_concept_set(tmp_path / "out" / report["concept_set"])
    learned = load_concepts(tmp_path / "out")
    assert every.learned.tokens.keys() == learned.tokens.keys()
    for name, token in learned.tokens.items():
        assert torch.equal(token.rows["clip_l"], every.learned.tokens[name].rows["clip_l"])
    assert [c.key for c in every.found] == ["ball", "ball-2"]
    assert list(every.found[0].mask.shape) == report["working_size"][::-1]
    assert set(every.thumbnails) == {"ball", "ball-2", *learned.tokens}
    assert (every.title, every.date) == ("squares", report["date"])
    assert every.settings["training"]["steps"] == 8
    for data in (every.sheet, every.picture, *every.thumbnails.values()):
        assert data is not None
        assert Image.open(io.BytesIO(data)).width > 0


def test_a_run_repeats_to_the_bit_under_a_seed(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b")
    for path in sorted((tmp_path / "a" / "embeddings").iterdir()):
        twin = tmp_path / "b" / "embeddings" / path.name
        assert torch.equal(load_file(path)["emb_params"], load_file(twin)["emb_params"])
    assert (tmp_path / "a" / "rows" / "ball.png").read_bytes() == (
        tmp_path / "b" / "rows" / "ball.png"
    ).read_bytes()


@pytest.mark.parametrize("step", [3, 6])
def test_an_interrupted_run_goes_on_to_the_same_numbers(tmp_path: Path, step: int) -> None:
    run(tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.stage == "learning tokens" and progress.done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop)
    assert not (tmp_path / "cut" / "report.json").exists()
    so_far = load_concepts(tmp_path / "cut")
    assert so_far.steps == step - step % 2 if step % 2 else step - 2
    assert list(so_far.concepts[0].intrinsics) == ["color", "material"]
    finish(resume(FakeBackbone(), tmp_path / "cut"))
    whole, cut = load_concepts(tmp_path / "whole"), load_concepts(tmp_path / "cut")
    assert cut.steps == 8
    for name, token in whole.tokens.items():
        assert torch.equal(token.rows["clip_l"], cut.tokens[name].rows["clip_l"]), name
    histories = [json.loads((tmp_path / n / "history.json").read_text())["losses"] for n in ("whole", "cut")]
    assert histories[0] == histories[1]
    rows = [(tmp_path / n / "rows" / "ball.png").read_bytes() for n in ("whole", "cut")]
    assert rows[0] == rows[1]


def test_an_interruption_while_pictures_are_drawn_keeps_the_training(tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "drawing pictures":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop)
    assert load_concepts(tmp_path / "cut").steps == 8
    seen: list[Progress] = []
    finish(resume(FakeBackbone(), tmp_path / "cut"), progress_to(seen.append))
    assert "learning tokens" not in {p.stage for p in seen}
    assert (tmp_path / "cut" / "sheet.png").exists()


def test_events_tell_what_was_found_learned_drawn_and_written_and_previews_come_when_asked_for(
    tmp_path: Path,
) -> None:
    image, masks = scene()
    given = (FakeBackbone(), None, image)
    events: list[RunEvent] = []
    finish(
        extract(*given, tmp_path / "out", SETTINGS, ["ball", "ball"], masks, preview_every=3), events.append
    )
    kinds = dict.fromkeys(type(e) for e in events if not isinstance(e, Progress))
    assert list(kinds) == [Found, Read, Preview, Trained, Drawn, Written]
    previews = [e for e in events if isinstance(e, Preview)]
    assert [e.step for e in previews] == [3, 4, 6], "and one where the first phase ends"
    assert previews[0].keys == ("ball", "ball-2")
    run(tmp_path / "plain")
    shown, plain = load_concepts(tmp_path / "out"), load_concepts(tmp_path / "plain")
    for name, token in plain.tokens.items():
        assert torch.equal(token.rows["clip_l"], shown.tokens[name].rows["clip_l"]), name


def test_not_asking_for_the_next_event_cancels_and_closing_keeps_what_was_learned(tmp_path: Path) -> None:
    image, masks = scene()
    events = extract(FakeBackbone(), None, image, tmp_path / "out", SETTINGS, ["ball", "ball"], masks)
    for event in events:
        if isinstance(event, Progress) and event.stage == "learning tokens" and event.done == 5:
            break
    events.close()
    assert load_concepts(tmp_path / "out").steps == 4
    assert finish(resume(FakeBackbone(), tmp_path / "out")).concepts


def test_nothing_is_written_before_objects_are_found(tmp_path: Path) -> None:
    class Nothing:
        def retrieve(self, image: torch.Tensor, used: tuple[str, ...] = ()) -> list[Named]:
            return []

    by_words = replace(SETTINGS, localization=LocalizationConfig(strategy="words"))
    with pytest.raises(IceError, match="no object was found"):
        finish(extract(FakeBackbone(), Nothing(), scene()[0], tmp_path / "out", by_words))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", [["../evil", "b"], ["a,b", "c"], ["", "b"]])
def test_labels_that_leave_the_folder_are_refused_before_any_work(tmp_path: Path, labels: list[str]) -> None:
    image, masks = scene()
    with pytest.raises(IceError):
        extract(FakeBackbone(), None, image, tmp_path / "out", SETTINGS, labels, masks)
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_overwritten_and_not_resumed_with_another_model(tmp_path: Path) -> None:
    run(tmp_path / "out")
    with pytest.raises(IceError, match="holds a run already"):
        run(tmp_path / "out")
    other = FakeBackbone()
    other.fingerprint = "0" * 64
    with pytest.raises(IceError, match="started with fake"):
        resume(other, tmp_path / "out")
    with pytest.raises(IceError, match="no run to resume"):
        resume(FakeBackbone(), tmp_path / "absent")
    (tmp_path / "out" / "run.json").write_text('{"title": "cut')
    with pytest.raises(IceError, match="cannot be resumed"):
        resume(FakeBackbone(), tmp_path / "out")


def test_the_settings_survive_a_file(tmp_path: Path) -> None:
    from dataclasses import asdict

    assert ExtractionSettings.from_plain(json.loads(json.dumps(asdict(SETTINGS)))) == SETTINGS
    with pytest.raises(IceError, match="another version"):
        ExtractionSettings.from_plain({"training": {"stpes": 3}})


def test_how_objects_were_found_is_drawn_and_reported(tmp_path: Path) -> None:
    finish(extract(FakeBackbone(), Names(), scene()[0], tmp_path / "out", SETTINGS))
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["pictures"]["rounds"] == "rounds.png"
    assert Image.open(tmp_path / "out" / "rounds.png").width > 0
    first, last = report["rounds"][0], report["rounds"][-1]
    assert first["considered"][0] == {"label": first["label"], "similarity": None, "definition": None}
    assert {key for step in report["rounds"] for key in step["found"]} == {
        c["key"] for c in report["concepts"]
    }
    assert last["ended"]


def test_what_a_user_marked_has_no_rounds(tmp_path: Path) -> None:
    image, masks = scene()
    finish(extract(FakeBackbone(), None, image, tmp_path / "out", SETTINGS, ["red", "blue"], masks))
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["rounds"] == []
    assert not (tmp_path / "out" / "rounds.png").exists()
