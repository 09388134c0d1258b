"""Extractions with refinement: what they write, and how they go on; the model is a fake."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from extractions import SETTINGS, progress_to
from extractions import scene as squares
from fakes import FakeBackbone
from loras import same

from ice_core.files.embeddings import load_concepts
from ice_core.files.lora import load_lora, lora_header
from ice_core.run.events import Progress
from ice_core.run.pipeline import extract, finish, resume
from ice_core.run.settings import ExtractionSettings
from ice_core.training import RefinementConfig

REFINED = dataclasses.replace(
    SETTINGS, refinement=RefinementConfig(steps=6, prior_pictures=2, snapshot_every=2)
)


def extract_squares(
    out: Path,
    listener: Callable[[Progress], None] | None = None,
    settings: ExtractionSettings = REFINED,
) -> None:
    image, masks = squares()
    events = extract(FakeBackbone(), None, image, out, settings, ["ball", "ball"], masks, "squares")
    finish(events, progress_to(listener))


def test_an_extraction_with_refinement_writes_a_lora_and_draws_with_it(tmp_path: Path) -> None:
    seen: list[Progress] = []
    extract_squares(tmp_path / "out", seen.append)
    extract_squares(tmp_path / "plain", settings=SETTINGS)
    reports = {n: json.loads((tmp_path / n / "report.json").read_text()) for n in ("out", "plain")}
    assert (reports["out"]["lora"], reports["plain"]["lora"]) == ("lora.safetensors", None)
    assert set(reports["out"]["seconds"]) - set(reports["plain"]["seconds"]) == {"refinement"}
    assert reports["out"]["settings"]["refinement"]["steps"] == 6
    header = lora_header(tmp_path / "out" / "lora.safetensors")
    assert (header["ice.refinement_steps"], header["ice.lora_rank"]) == ("6", "4")
    load_lora(tmp_path / "out" / "lora.safetensors").check(FakeBackbone().lora_targets, "fake")
    assert not (tmp_path / "plain" / "lora.safetensors").exists()
    tokens, plain = (load_concepts(tmp_path / n).tokens for n in ("out", "plain"))
    assert all(torch.equal(tokens[k].rows["clip_l"], plain[k].rows["clip_l"]) for k in plain)
    rows = [(tmp_path / n / "rows" / "ball.png").read_bytes() for n in ("out", "plain")]
    assert rows[0] != rows[1]
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages[2:6] == ["learning tokens", "drawing a prior", "refining weights", "drawing pictures"]
    assert [(p.done, p.total) for p in seen if p.stage == "drawing a prior"] == [(1, 2), (2, 2)]
    assert len(json.loads((tmp_path / "out" / "history.json").read_text())["losses"]) == 8 + 6


@pytest.mark.parametrize("step", [1, 5])
def test_an_interrupted_refinement_goes_on_to_the_same_numbers(tmp_path: Path, step: int) -> None:
    extract_squares(tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.stage == "refining weights" and progress.done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_squares(tmp_path / "cut", stop)
    assert load_concepts(tmp_path / "cut").steps == 8
    kept = tmp_path / "cut" / "lora.safetensors"
    assert kept.exists() == (step > 1)
    if kept.exists():
        assert lora_header(kept)["ice.refinement_steps"] == str(step - 1)
    seen: list[Progress] = []
    finish(resume(FakeBackbone(), tmp_path / "cut"), progress_to(seen.append))
    assert not {"learning tokens", "drawing a prior"} & {p.stage for p in seen}
    assert same(*(load_lora(tmp_path / name / "lora.safetensors") for name in ("whole", "cut")))
    rows = [(tmp_path / name / "rows" / "ball.png").read_bytes() for name in ("whole", "cut")]
    assert rows[0] == rows[1]
    histories = [json.loads((tmp_path / n / "history.json").read_text())["losses"] for n in ("whole", "cut")]
    assert histories[0] == histories[1]
    again: list[Progress] = []
    finish(resume(FakeBackbone(), tmp_path / "cut"), progress_to(again.append))
    assert "refining weights" not in {p.stage for p in again}


def test_settings_of_a_run_from_before_refinement_are_read() -> None:
    plain = dataclasses.asdict(SETTINGS)
    del plain["refinement"]
    assert ExtractionSettings.from_plain(plain) == SETTINGS
    assert ExtractionSettings.from_plain(json.loads(json.dumps(dataclasses.asdict(REFINED)))) == REFINED
