"""Saving into the concept library, taking out of it, and its addresses, on a real server."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from concept_sets import concept_set
from graphs import Draft, find

from ice_core.library.entries import Query
from ice_core.library.store import Library
from tools.comfy_client import Client, Refused
from tools.comfy_host import Server


@pytest.fixture
def library(server: Server) -> Iterator[Library]:
    """A new one in the place of that of other tests: 1 ball and 2 cube."""
    shutil.rmtree(server.folder / "ice-library", ignore_errors=True)
    with Library(server.folder / "ice-library") as made:
        made.add(concept_set(), "squares.png")
        yield made


def shown(client: Client, draft: Draft, node: str) -> str:
    """What a node writes when the graph has run."""
    run = client.run(draft.graph)
    assert run.status == "success", run.error
    (text,) = run.executed[node]["text"]
    return str(text)


def learned(draft: Draft, **saving: Any) -> str:
    """A scene of the demo, its objects as words, saved; returns the saving node's id."""
    wires = draft.demo()
    scene = draft.out(draft.add("ICEDemoScene", seed=1, objects=2))
    found = draft.localize(
        wires, scene, mode="given words, one pass", labels="ball, cube, cone, ring, cylinder"
    )
    trained = draft.train(wires, scene, draft.out(found), method="words", steps=2)
    return draft.add(
        "ICESaveConcepts", learned=draft.out(trained), folder="library/test", destination="output", **saving
    )


def test_what_is_saved_is_filed_and_taken_out_again(client: Client, library: Library) -> None:
    draft = Draft()
    said = shown(client, draft, learned(draft, library=True))
    kept = library.search(Query())
    assert f"library: {', '.join(f'#{hit.entry.id}' for hit in reversed(kept[:-2]))}" in said
    newest = kept[0].entry
    assert newest.id > 2
    assert newest.origin.startswith("ComfyUI, library/test")
    assert library.thumbnail(newest.id), "filed with its pictures"

    again = Draft()
    taken = again.add("ICELibraryConcept", concept=f"{newest.key} #{newest.id}", search="")
    shown_by = again.add("PreviewAny", source=again.out(taken, 1))
    wires = again.demo()
    composed = again.add(
        "ICEConceptComposer",
        clip=wires["clip"],
        prompt=f"a photo of a {{{newest.key}.object}}",
        a=again.out(taken),
    )
    again.add("PreviewAny", source=again.out(composed, 1))
    assert shown(client, again, shown_by).splitlines()[0] == newest.key


def test_nothing_is_filed_unless_one_says_so(client: Client, library: Library) -> None:
    draft = Draft()
    shown(client, draft, learned(draft))
    assert library.count() == 2


def picking(concept: str = "", search: str = "", prompt: str = "a {ball}") -> Draft:
    draft = Draft()
    taken = draft.add("ICELibraryConcept", concept=concept, search=search)
    wires = draft.demo()
    composed = draft.add("ICEConceptComposer", clip=wires["clip"], prompt=prompt, a=draft.out(taken))
    draft.add("PreviewAny", source=draft.out(composed, 1))
    return draft


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"concept": "vase"}, "no concept named 'vase'; there are for example cube #2, ball #1"),
        ({"concept": "ball #2"}, "no concept ball #2"),
        ({}, "name a concept of the library"),
        ({"search": "unicorn"}, "with the words 'unicorn'"),
        ({"concept": "ball", "prompt": "a {ball.size} cube"}, "'size' could not be read"),
    ],
)
def test_what_the_library_lacks_is_refused_before_the_run(
    client: Client, library: Library, asked: dict[str, str], reason: str
) -> None:
    with pytest.raises(Refused) as refused:
        client.queue(picking(**asked).graph)
    told = [
        error["details"] for node in refused.value.reply["node_errors"].values() for error in node["errors"]
    ]
    assert any(reason in text for text in told), told


def test_without_a_library_there_is_said_how_to_make_one(client: Client, server: Server) -> None:
    shutil.rmtree(server.folder / "ice-library", ignore_errors=True)
    with pytest.raises(Refused, match="there is no library in"):
        client.queue(picking("ball").graph)


def test_the_newest_of_a_name_is_taken_anew_when_there_is_a_newer_one(
    client: Client, library: Library
) -> None:
    draft = Draft()
    taken = draft.add("ICELibraryConcept", concept="ball", search="")
    draft.add("PreviewAny", source=draft.out(taken, 1))
    assert shown(client, draft, taken).splitlines()[0] == "ball #1"
    library.add(concept_set(("ball",), title="newer"))
    assert shown(client, draft, taken).splitlines()[0] == "ball #3, one of 2 that fit"


def test_the_node_shows_what_was_picked(client: Client, library: Library) -> None:
    draft = Draft()
    taken = draft.add("ICELibraryConcept", concept="", search="red")
    draft.add("PreviewAny", source=draft.out(taken, 1))
    run = client.run(draft.graph)
    assert run.status == "success", run.error
    (picture,) = client.pictures(run, taken)
    assert picture.size == (128, 128)
    red, _, blue = picture.getpixel((64, 64))
    assert red > 200 > 100 > blue


def test_names_are_completed_from_the_library(client: Client, library: Library) -> None:
    draft = picking("ball")
    told = client.post(
        "/ice/placeholders",
        {"graph": draft.graph, "node": find(draft.graph, "ICEConceptComposer"), "prompt": "a {teapot}"},
    )
    assert {"ball", "ball.object", "ball.color", "ball.material"} <= set(told["names"])
    assert "{teapot}" in told["problem"]


def answer(
    server: Server, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(f"{server.url}/ice/library{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_addresses_answer_on_the_hosts_own_server(server: Server, library: Library) -> None:
    status, headers, body = answer(server, "/concepts?limit=1")
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "application/json")
    (cube,) = json.loads(body)["concepts"]
    status, headers, body = answer(server, f"/concepts/2/thumbnail?v={cube['thumbnail']}")
    assert (status, headers["Content-Type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert answer(server, "/concepts/2/thumbnail", **{"If-None-Match": headers["ETag"]})[0] == 304
    assert json.loads(answer(server, "")[2])["concepts"] == 2
    assert json.loads(answer(server, "/")[2])["concepts"] == 2


@pytest.mark.parametrize(
    "path",
    [
        "/concepts/..%2f..%2flibrary.sqlite", "/..%2fserver.log", "/%2e%2e/server.log",
        "/concepts/x/thumbnail", "/concepts/1/..%2f..%2f..%2fserver.log", "/concepts?limit=100000",
        "/concepts?has=%ff", "/library.sqlite",
    ],
)  # fmt: skip
def test_odd_addresses_get_an_error_in_json(server: Server, library: Library, path: str) -> None:
    status, headers, body = answer(server, path)
    assert status in (400, 404), body
    assert headers["Content-Type"].partition(";")[0] == "application/json"
    assert json.loads(body)["error"]


def test_only_an_explicit_removal_changes_the_library(server: Server, library: Library) -> None:
    for method in ("POST", "PUT", "PATCH"):
        assert answer(server, "/concepts/1", method)[0] == 405
    assert library.count() == 2
    status, _, body = answer(server, "/concepts/1", "DELETE")
    assert (status, json.loads(body)) == (200, {"removed": 1, "left": 1})
    assert library.count() == 1
