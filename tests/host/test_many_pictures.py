"""Many pictures go through the nodes: as a batch, or as a list of the core's own Rebatch Images."""

from __future__ import annotations

from graphs import Draft

from ice_core.files.concept_set import load_concept_set
from tools.comfy_client import Client
from tools.comfy_host import Server


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


def batch(draft: Draft, *seeds: int) -> str:
    """Rendered scenes of one object each as one batch."""
    made, *others = (draft.add("ICEDemoScene", seed=seed, objects=1) for seed in seeds)
    for one in others:
        made = draft.add("ImageBatch", image1=draft.out(made), image2=draft.out(one))
    return made


def test_a_batch_is_learned_with_one_bar_and_what_fails_does_not_lose_the_rest(
    client: Client, server: Server
) -> None:
    draft = Draft()
    wires = draft.demo()
    # A ball, a cone, and a ball: what is said of a ball fits the cone's picture not at all.
    pictures = draft.out(batch(draft, 3, 1, 4))
    words = draft.add(
        "ICEConceptRetriever", image=pictures, source="bundled demo CLIP",
        open_clip_model="ViT-L-14-quickgelu/openai", vocabulary="", count=8,
    )  # fmt: skip
    found = draft.localize(wires, pictures, mode="find every object", words=draft.out(words), max_rounds=3)
    trainer = draft.train(
        wires, pictures, draft.out(found), axes="color", steps=4, overrule="ball.color=red",
        gradient_checkpointing="on",
        words=draft.out(words),
    )  # fmt: skip
    saving = draft.add(
        "ICESaveConcepts", learned=draft.out(trainer), folder="many/scene", destination="output"
    )
    sheets = draft.add("SaveImage", images=draft.out(trainer, 3), filename_prefix="many")

    run = client.run(draft.graph)

    assert run.status == "success", run.error
    assert len(client.pictures(run, found)) == 3
    assert len(client.pictures(run, sheets)) == 2
    told = [(value, most) for node, value, most in run.progress if node == trainer]
    assert {most for _, most in told} == {12}, "one bar for all"
    values = [value for value, _ in told]
    assert values == sorted(values)
    assert values[-1] == 12
    assert len(run.executed[saving]["text"]) == 2
    sets = sorted(server.output.glob("many/scene*/concepts.safetensors"))
    assert len(sets) == 2, "each picture has a folder of its own"
    first, second = (load_concept_set(path) for path in sets)
    assert [c.key for one in (first, second) for c in one.learned.concepts] == ["ball", "ball"]
    assert first.picture != second.picture
    assert not list(server.output.glob("ice/interrupted/*/run.json"))


def test_masks_of_one_picture_are_not_taken_for_several(client: Client) -> None:
    draft = Draft()
    wires = draft.demo()
    scene = draft.add("ICEDemoScene", seed=3, objects=2)
    both = draft.out(batch(draft, 1, 3))
    found = draft.localize(
        wires, both, mode="given masks", labels=draft.out(scene, 2), masks=draft.out(scene, 1)
    )
    draft.add("PreviewImage", images=draft.out(found, 3))

    run = client.run(draft.graph)

    assert run.status == "error"
    assert "1 batches of masks for 2 pictures" in run.error["exception_message"]
