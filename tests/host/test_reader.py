"""The reader's table, and its text at the trainer."""

from __future__ import annotations

from graphs import Draft

from tools.comfy_client import Client


def test_what_was_read_and_set_right_is_what_the_trainer_takes(client: Client) -> None:
    draft = Draft()
    wires = draft.demo()
    scene = draft.add("ICEDemoScene", seed=3, objects=2)
    found = draft.localize(
        wires, draft.out(scene), mode="given masks", labels=draft.out(scene, 2), masks=draft.out(scene, 1)
    )
    reader = draft.add(
        "ICEAttributeReader", **wires, concepts=draft.out(found), axes="color, material",
        overrule="ball.color=red\nball-2.material=", seed=0,
    )  # fmt: skip
    shown = draft.add("PreviewAny", source=draft.out(reader))
    trainer = draft.train(
        wires, draft.out(scene), draft.out(found), method="words", overrule=draft.out(reader)
    )
    draft.add("PreviewImage", images=draft.out(trainer, 4))

    run = client.run(draft.graph)

    assert run.status == "success", run.error
    (text,) = run.executed[shown]["text"]
    lines = dict(line.split("=") for line in text.splitlines())
    assert set(lines) == {f"{key}.{axis}" for key in ("ball", "ball-2") for axis in ("color", "material")}
    assert (lines["ball.color"], lines["ball-2.material"]) == ("red", "")
    assert client.pictures(run, reader)
