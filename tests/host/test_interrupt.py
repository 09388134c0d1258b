"""Cancel during training: nothing is broken, nothing is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import Draft

from tools.comfy_client import Client, Run
from tools.comfy_graph import inputs_of
from tools.comfy_host import Server

STEPS = 24
ENOUGH = 6


def scene_and_training() -> tuple[Draft, str]:
    draft = Draft()
    wires = draft.demo()
    scene = draft.add("ICEDemoScene", seed=3, objects=2)
    found = draft.localize(
        wires, draft.out(scene), mode="given masks", labels=draft.out(scene, 2), masks=draft.out(scene, 1)
    )
    trainer = draft.train(wires, draft.out(scene), draft.out(found), steps=STEPS, seed=7)
    draft.add("PreviewImage", images=draft.out(trainer, 3))
    return draft, trainer


def paint(client: Client, last_step: int) -> np.ndarray:
    """A picture by the loaded model. last_step lies beyond the steps there are: another number runs the same
    sampling again instead of taking it from the cache."""
    draft = Draft()
    wires = draft.demo()
    texts = [draft.add("CLIPTextEncode", clip=wires["clip"], text=text) for text in ("a red ball", "")]
    empty = draft.add("EmptyLatentImage", width=128, height=128, batch_size=1)
    sampler = draft.add(
        "KSamplerAdvanced", model=wires["model"], positive=draft.out(texts[0]), negative=draft.out(texts[1]),
        latent_image=draft.out(empty), add_noise="enable", noise_seed=5, steps=4, cfg=5.0,
        sampler_name="euler", scheduler="normal", start_at_step=0, end_at_step=last_step,
        return_with_leftover_noise="disable",
    )  # fmt: skip
    picture = draft.add("VAEDecode", samples=draft.out(sampler), vae=wires["vae"])
    saving = draft.add("SaveImage", images=draft.out(picture), filename_prefix="test")
    run = client.run(draft.graph)
    assert run.status == "success", run.error
    assert sampler not in run.cached
    return np.asarray(client.pictures(run, saving)[0])


@pytest.fixture(scope="module")
def cancelled(server: Server) -> dict[str, Any]:
    """A training cancelled at its sixth step, with a painted picture before and after, and then resumed."""
    client = Client(server.url)
    before = paint(client, last_step=1000)
    draft, trainer = scene_and_training()

    def cancel(run: Run) -> None:
        if any(node == trainer and value >= ENOUGH for node, value, _ in run.progress):
            client.interrupt()

    others = {path.name for path in server.output.glob("ice/interrupted/*")}
    first = client.run(draft.graph, watch=cancel)
    queue = client.settled()
    (folder,) = (path for path in server.output.glob("ice/interrupted/*") if path.name not in others)
    kept = sorted(folder.glob("embeddings/*.safetensors"))
    after = paint(client, last_step=1001)
    definition = client.get("/object_info/ICELoadConcepts")["ICELoadConcepts"]
    names = inputs_of(definition)["folder"][1]["options"]
    listed = [name for name in names if folder.name in name and name.endswith("concepts.safetensors")]
    opening = Draft()
    loader = opening.add("ICELoadConcepts", folder=listed[0])
    opening.add("PreviewAny", source=opening.out(loader, 1))
    loaded = client.run(opening.graph)
    second = client.run(draft.graph)
    return {
        "trainer": trainer, "before": before, "first": first, "queue": queue, "kept": kept, "after": after,
        "second": second, "listed": listed, "loader": loader, "loaded": loaded,
    }  # fmt: skip


def values(run: Run, node: str) -> list[int]:
    return [value for seen, value, _ in run.progress if seen == node]


def test_training_stops_at_once(cancelled: dict[str, Any]) -> None:
    assert cancelled["first"].status == "interrupted"
    assert max(values(cancelled["first"], cancelled["trainer"])) < STEPS
    assert cancelled["queue"] == {"queue_running": [], "queue_pending": []}


def test_what_was_learned_so_far_is_on_disk(cancelled: dict[str, Any]) -> None:
    names = {path.name for path in cancelled["kept"]}

    assert {"ball_object.safetensors", "ball-2_object.safetensors"} <= names


def test_a_concept_set_of_what_was_learned_so_far_is_listed_and_loads(
    cancelled: dict[str, Any], client: Client
) -> None:
    assert cancelled["listed"], "ICE Load Concepts lists it"
    assert cancelled["loaded"].status == "success", cancelled["loaded"].error
    (names,) = cancelled["loaded"].executed[cancelled["loader"]]["text"]
    assert {"ball", "ball.object", "ball-2"} <= set(names.splitlines())


def test_model_is_unchanged(cancelled: dict[str, Any]) -> None:
    assert (cancelled["before"] == cancelled["after"]).all()


def test_next_run_goes_on_from_what_was_learned(cancelled: dict[str, Any]) -> None:
    resumed = values(cancelled["second"], cancelled["trainer"])

    assert cancelled["second"].status == "success", cancelled["second"].error
    assert min(resumed) >= ENOUGH
    assert resumed[-1] >= STEPS
