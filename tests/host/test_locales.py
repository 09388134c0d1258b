"""Translations are complete for the nodes that the server lists, and the page gets them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools.comfy_client import Client
from tools.make_locales import LANGUAGES, LOCALES, english


def shape(value: Any) -> Any:
    return {key: shape(one) for key, one in value.items()} if isinstance(value, dict) else None


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_key_is_missing(client: Client, language: str) -> None:
    texts = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))

    assert shape(texts) == shape(english(client.get("/object_info"))), "run tools/make_locales.py"


def test_the_page_gets_them(client: Client) -> None:
    served = client.get("/i18n")

    assert set(LANGUAGES) <= set(served)
    assert served["de"]["nodeDefs"]["ICEDemoScene"]["inputs"]["objects"]["name"] == "Objekte"
