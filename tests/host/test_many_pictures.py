"""A batch of pictures goes through the nodes one after the other, by the core's own Rebatch Images."""

from __future__ import annotations

from graphs import Draft

from tools.comfy_client import Client


def test_pictures_of_a_batch_are_taken_apart_one_after_the_other(client: Client) -> None:
    draft = Draft()
    wires = draft.demo()
    scenes = [draft.add("ICEDemoScene", seed=seed, objects=2) for seed in (1, 3)]
    batch = draft.add("ImageBatch", image1=draft.out(scenes[0]), image2=draft.out(scenes[1]))
    single = draft.add("RebatchImages", images=draft.out(batch), batch_size=1)
    words = draft.add(
        "ICEConceptRetriever", image=draft.out(single), source="bundled demo CLIP", open_clip_model="",
        vocabulary="", count=8,
    )  # fmt: skip
    found = draft.localize(
        wires, draft.out(single), mode="find every object", words=draft.out(words), max_rounds=3
    )
    trainer = draft.train(wires, draft.out(single), draft.out(found), method="words", words=draft.out(words))
    saving = draft.add("SaveImage", images=draft.out(trainer, 3), filename_prefix="many")

    run = client.run(draft.graph)

    assert run.status == "success", run.error
    assert len(client.pictures(run, saving)) == 2
