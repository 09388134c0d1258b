"""The library as a researcher calls it, on a fake model; and that importing it is quick."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from extractions import SETTINGS, Names, scene
from fakes import FakeBackbone
from PIL import Image

import ice_core
from ice_core import api
from ice_core.files.images import save_png, to_pil
from ice_core.model.backbone import Prompt
from ice_core.run.events import Found, Progress, RunEvent, Written
from ice_core.run.folder import RunFolder
from ice_core.world.bundled import MODEL_FILE, is_bundled
from ice_core.world.scenes import AXES


def test_importing_it_loads_neither_torch_nor_a_model() -> None:
    script = (
        "import sys, ice_core; ice_core.IceError; dir(ice_core)\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'diffusers', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in ice_core.__all__:
        assert name in dir(ice_core)
        assert getattr(ice_core, name).__doc__, name
    with pytest.raises(AttributeError, match="paint"):
        ice_core.paint  # noqa: B018


@pytest.mark.parametrize("kind", ["file", "PIL picture", "tensor"])
def test_a_picture_of_any_kind_is_taken_apart_to_the_same_tokens(tmp_path: Path, kind: str) -> None:
    image, masks = scene()
    file = save_png(image, tmp_path / "squares.png")
    mask_files = [save_png(mask, tmp_path / f"{i}.png") for i, mask in enumerate(masks)]
    labels, fake = ["ball", "ball"], FakeBackbone()
    picture = {"file": str(file), "PIL picture": to_pil(image), "tensor": image}[kind]
    expected = ice_core.extract_concepts(
        fake, file, tmp_path / "a", labels=labels, masks=masks, settings=SETTINGS
    )
    seen: list[RunEvent] = []
    result = ice_core.extract_concepts(
        fake, picture, str(tmp_path / "b"), labels=labels, masks=mask_files, settings=SETTINGS,
        listener=seen.append,
    )  # fmt: skip
    assert result.folder == tmp_path / "b"
    assert [concept.key for concept in result.found.concepts] == ["ball", "ball-2"]
    assert result.lora is None
    assert result.report.title == ("squares.png" if kind == "file" else "a picture")
    assert isinstance(seen[-1], Written)
    read = ice_core.load_concepts(tmp_path / "b")
    for name, token in expected.learned.tokens.items():
        assert torch.equal(token.rows["clip_l"], result.learned.tokens[name].rows["clip_l"]), name
        assert torch.equal(token.rows["clip_l"], read.tokens[name].rows["clip_l"]), name


def test_a_closed_stream_keeps_what_was_learned_and_goes_on(tmp_path: Path) -> None:
    events = ice_core.extract(
        FakeBackbone(), scene()[0], tmp_path / "out", retriever=Names(), settings=SETTINGS
    )
    assert not (tmp_path / "out").exists()
    for event in events:
        if isinstance(event, Progress) and event.stage == "learning tokens" and event.done == 5:
            break
    events.close()
    assert ice_core.load_concepts(tmp_path / "out").steps == 4
    with pytest.raises(ice_core.IceError, match="resume it"):
        ice_core.extract(FakeBackbone(), scene()[0], tmp_path / "out", labels=["ball"])
    *_, last = ice_core.resume(FakeBackbone(), tmp_path / "out")
    assert isinstance(last, Written)
    assert ice_core.load_concepts(tmp_path / "out").steps == 8


def test_objects_that_have_no_mask_are_looked_for_by_their_names(tmp_path: Path) -> None:
    events = ice_core.extract(
        FakeBackbone(), scene()[0], tmp_path / "out", labels=["ball"], settings=SETTINGS
    )
    found = next(event for event in events if isinstance(event, Found))
    events.close()
    assert {concept.label for concept in found.concepts.concepts} == {"ball"}


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.rand(64, 64, 3), r"shape \[64, 64, 3\]"),
        (torch.rand(3, 31, 64), r"shape \[3, 31, 64\]"),
        (torch.rand(3, 64, 64) * 255, r"outside of 0\.\.1"),
        (torch.full((3, 64, 64), float("nan")), r"outside of 0\.\.1"),
        (Image.new("RGB", (31, 40)), "31 x 40 pixels"),
        ("absent.png", "absent.png"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, picture: ice_core.api.Picture, message: str) -> None:
    with pytest.raises(ice_core.IceError, match=message):
        ice_core.extract(FakeBackbone(), picture, tmp_path / "out", labels=["ball"])


def test_pictures_are_composed_from_values_folders_and_files(tmp_path: Path) -> None:
    image, masks = scene()
    fake = FakeBackbone()
    learned = ice_core.extract_concepts(
        fake, image, tmp_path / "one", labels=["ball", "cube"], masks=masks, settings=SETTINGS
    ).learned
    few = ice_core.SamplingConfig(steps=2)
    first, second = ice_core.compose(fake, "a {ball.object}", learned, count=2, seed=3, settings=few)
    assert isinstance(first, Image.Image)
    assert first.size == (64, 64)
    assert first.tobytes() != second.tobytes()
    token = tmp_path / "one" / "embeddings" / "ball_object.safetensors"
    for prompt, concepts in (
        ("a {ball.object}", tmp_path / "one"),
        ("a {ball.object}", tmp_path / "one" / "concepts.safetensors"),
        ("a {ball.object}", str(token)),
        ("a {x.ball.object}", {"x": learned, "y": tmp_path / "one"}),
        ("a {y}", {"x": learned, "y": token}),
    ):
        again = ice_core.compose(fake, prompt, concepts, seed=3, settings=few)
        assert [picture.tobytes() for picture in again] == [first.tobytes()]
    file = tmp_path / "one" / "embeddings" / "ball.safetensors"
    short, same = (ice_core.compose(fake, "a {ball}", source, settings=few) for source in (learned, file))
    assert short[0].tobytes() == same[0].tobytes() != first.tobytes()
    wide = ice_core.compose(fake, "a {ball.object}", learned, size=(64, 96), settings=few)
    assert wide[0].size == (96, 64)
    paths = ice_core.save_concepts(learned, str(tmp_path / "again"))
    assert all(path.parent == tmp_path / "again" for path in paths.values())
    with pytest.raises(ice_core.IceError, match="which was not learned"):
        ice_core.compose(fake, "a {cone.object}", learned)
    with pytest.raises(ice_core.IceError, match="count is 0"):
        ice_core.compose(fake, "a {ball.object}", learned, count=0)


def test_a_refined_picture_is_composed_with_its_lora(tmp_path: Path) -> None:
    image, masks = scene()
    fake, few = FakeBackbone(), ice_core.SamplingConfig(steps=2)
    settings = ice_core.ExtractionSettings(
        SETTINGS.training,
        sampling=few,
        refinement=ice_core.RefinementConfig(steps=2, prior_pictures=1, learning_rate=0.1),
    )
    result = ice_core.extract_concepts(
        fake, image, tmp_path / "out", labels=["ball", "cube"], masks=masks, settings=settings
    )
    drawn = [
        ice_core.compose(fake, "a {ball.object}", result.learned, lora=lora, settings=few)[0].tobytes()
        for lora in (None, result.lora, tmp_path / "out" / "lora.safetensors")
    ]
    assert drawn[0] != drawn[1]
    assert drawn[1] == drawn[2]


def test_the_model_helps_to_read_where_it_is_known_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, masks = scene()
    told = []
    for bundled, asked in ((False, None), (True, None), (True, 0), (False, 4)):
        monkeypatch.setattr(api, "is_bundled", lambda _, bundled=bundled: bundled)
        monkeypatch.setattr(api, "reading_towers", lambda _: None)
        reading = ice_core.ReadingConfig(noises=asked)
        settings = ice_core.ExtractionSettings(SETTINGS.training, reading=reading)
        out = tmp_path / f"{bundled}-{asked}"
        events = ice_core.extract(
            FakeBackbone(), image, out, labels=["ball", "cube"], masks=masks, settings=settings
        )
        while not (out / "run.json").exists():
            next(events)
        events.close()
        told.append(json.loads((out / "run.json").read_text())["settings"]["reading"]["noises"])
    assert told == [0, 8, 0, 4]


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99"])
def test_a_device_that_does_not_work_is_refused(device: str) -> None:
    with pytest.raises(ice_core.IceError, match=device):
        ice_core.load_model(None, device)


def test_a_precision_that_is_none_is_refused() -> None:
    with pytest.raises(ice_core.IceError, match="float32, bfloat16, float16"):
        ice_core.load_model(None, "cpu", "int3")


@pytest.mark.skipif(not MODEL_FILE.is_file(), reason="the bundled weights are not there")
def test_without_a_path_the_bundled_model_and_its_own_clip_are_opened(tmp_path: Path) -> None:
    model = ice_core.load_model(device="cpu", dtype="bfloat16")
    assert is_bundled(model)
    assert not is_bundled(FakeBackbone())
    assert model.encode_prompts([Prompt(("a ball",))]).context.dtype == torch.bfloat16
    assert ice_core.load_retriever(model).model.name == "bundled"


@pytest.mark.skipif(not MODEL_FILE.is_file(), reason="the bundled weights are not there")
def test_without_settings_the_bundled_model_is_shown_on_things_of_its_world(tmp_path: Path) -> None:
    image, masks = scene()
    events = ice_core.extract(
        ice_core.load_model(device="cpu"), image, tmp_path / "out", labels=["ball", "cube"], masks=masks
    )
    while not (tmp_path / "out" / "run.json").exists():
        next(events)
    events.close()
    start, _ = RunFolder(tmp_path / "out").load_start()
    assert tuple(start.settings["showing"]["others"]) == AXES["kind"]
    assert {k: tuple(v) for k, v in start.settings["showing"]["values"].items()} == AXES
