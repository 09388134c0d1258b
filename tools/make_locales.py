"""Writes what ComfyUI's page shows of the nodes in people's own languages.

    python tools/make_locales.py         # locales/<language>/nodeDefs.json of tools/locales/<language>.json

A catalog holds English texts of the nodes and what they are in its language; those that it lacks stay English
and are named. Needs a ComfyUI (COMFYUI_PATH, see tools/comfy_host.py) to read the nodes from.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

if (_root := str(Path(__file__).absolute().parents[1])) not in sys.path:
    sys.path.append(_root)

from tools.comfy_client import Client
from tools.comfy_graph import Definitions, inputs_of, is_ours
from tools.comfy_host import PACK, find_hosts, running

CATALOGS, LOCALES = PACK / "tools" / "locales", PACK / "locales"
LANGUAGES = ("en", "zh", "zh-TW", "ja", "ko", "fr", "de", "ru", "es")
Catalog = Mapping[str, str]


def english(object_info: Definitions) -> dict[str, Any]:
    """The nodes' own texts, in the form of nodeDefs.json: node -> names, descriptions, inputs, outputs."""
    return {name: _texts(one) for name, one in sorted(object_info.items()) if _is_of_this_pack(name, one)}


def _is_of_this_pack(name: str, definition: Mapping[str, Any]) -> bool:
    return is_ours(definition) and name.startswith("ICE")


def _texts(definition: Mapping[str, Any]) -> dict[str, Any]:
    tooltips = definition.get("output_tooltips") or []
    outputs = {}
    for n, name in enumerate(definition["output_name"]):
        tooltip = tooltips[n] if n < len(tooltips) else None
        outputs[str(n)] = {"name": name} | ({"tooltip": tooltip} if tooltip else {})
    return {
        "display_name": definition["display_name"],
        "description": definition["description"],
        "inputs": {
            name: {"name": options.get("display_name") or name, "tooltip": options["tooltip"]}
            for name, (_, options) in inputs_of(definition).items()
        },
        "outputs": outputs,
    }


def translated(texts: Any, catalog: Catalog) -> Any:
    """The same with every text in the language of a catalog, where it has it."""
    if isinstance(texts, Mapping):
        return {key: translated(value, catalog) for key, value in texts.items()}
    return _in_language(texts, catalog)


def _in_language(text: str, catalog: Catalog) -> str:
    """Inputs that differ in their letter alone share the text of the first."""
    of_first = re.sub(r"\{[b-h]\.", "{a.", text)
    found = catalog.get(text, catalog.get(of_first, text))
    letter = re.search(r"\{([b-h])\.", text)
    return re.sub(r"\ba\.", f"{letter[1]}.", found) if letter and text not in catalog else found


def missing(texts: Any, catalog: Catalog) -> Iterator[str]:
    """Sentences that a catalog lacks; a name of one word may be the same in every language."""
    if isinstance(texts, Mapping):
        for value in texts.values():
            yield from missing(value, catalog)
    elif " " in texts and _in_language(texts, catalog) == texts:
        yield texts


def load_catalog(language: str) -> dict[str, str]:
    catalog: dict[str, str] = json.loads((CATALOGS / f"{language}.json").read_text(encoding="utf-8"))
    return catalog


def write_locales(object_info: Definitions) -> None:
    """Every language's file; says what is not translated."""
    texts = english(object_info)
    for language in LANGUAGES:
        catalog = load_catalog(language)
        path = LOCALES / language / "nodeDefs.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        written = json.dumps(translated(texts, catalog), indent=1, ensure_ascii=False)
        path.write_text(written + "\n", encoding="utf-8")
        print(path)
        for text in dict.fromkeys(missing(texts, catalog)) if language != "en" else ():
            print(f"  not translated: {text}")


def main() -> int:
    hosts = find_hosts()
    if not hosts:
        print("error: there is no ComfyUI; set COMFYUI_PATH to its folder", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, running(hosts[-1], Path(folder)) as server:
        write_locales(Client(server.url).get("/object_info"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
