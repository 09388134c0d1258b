"""The nodes' texts in people's languages, as they lie in the repository."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tools.make_locales import LANGUAGES, LOCALES, load_catalog, missing, translated


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from texts_in(one)
    else:
        yield value


def locale(language: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_holds_what_the_page_would_take_for_a_placeholder(language: str) -> None:
    assert [text for text in texts_in(locale(language)) if set(text) & set("{}|@")] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_nodes_and_slots(language: str) -> None:
    def keys(value: Any) -> Any:
        return {key: keys(one) for key, one in value.items()} if isinstance(value, dict) else None

    assert keys(locale(language)) == keys(locale("en"))


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_catalogs_speak_of_the_same_texts(language: str) -> None:
    assert load_catalog(language).keys() == load_catalog(LANGUAGES[1]).keys()


def test_inputs_that_differ_in_a_letter_share_a_text() -> None:
    catalog = {"Concepts {a.<object>}": "Konzepte a.Objekt", "word": "Wort"}
    texts = {"one": "Concepts {a.<object>}", "two": {"three": "Concepts {c.<object>}", "four": "word"}}
    assert translated(texts, catalog) == {
        "one": "Konzepte a.Objekt", "two": {"three": "Konzepte c.Objekt", "four": "Wort"},
    }  # fmt: skip
    assert list(missing({"x": "not there", "y": "one"}, catalog)) == ["not there"]
