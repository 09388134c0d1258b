"""What the library's panel says is complete in every language."""

from __future__ import annotations

import json
import re

import pytest

from tools.comfy_host import PACK
from tools.make_locales import LANGUAGES

TEXTS, SCRIPTS = PACK / "web" / "texts", PACK / "web" / "js"


def texts(language: str) -> dict[str, str]:
    read: dict[str, str] = json.loads((TEXTS / f"{language}.json").read_text(encoding="utf-8"))
    return read


def fields(text: str) -> list[str]:
    return sorted(re.findall(r"\{\w+\}", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_there_with_its_fields(language: str) -> None:
    english, own = texts("en"), texts(language)
    assert own.keys() == english.keys()
    for name, text in english.items():
        assert text.strip()
        assert fields(own[name]) == fields(text), name
    if language != "en":
        same = [name for name, text in english.items() if " " in text and own[name] == text]
        assert not same, "not translated"


def test_the_panel_says_nothing_else() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in sorted(SCRIPTS.glob("library*.js")))
    said = set(re.findall(r'\btext\("(\w+)"', source))
    assert said <= texts("en").keys()
    by_name = {
        "baseLabel",
        "axisLabel",
        "valueLabel",
        "tags",
        "picture",
        "origin",
        "base",
        "learned",
        "added",
    }
    assert texts("en").keys() == said | by_name


def test_there_are_no_other_languages() -> None:
    assert {path.stem for path in TEXTS.glob("*.json")} == set(LANGUAGES)
