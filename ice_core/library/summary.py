"""The page that shows what came of a folder of pictures: one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from ice_core.files.paths import atomic_write
from ice_core.library.batch import Filed
from ice_core.library.entries import Entry
from ice_core.library.store import Library

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #222; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 1.5rem 0 0.3rem; }
h2 small, figcaption small { color: #666; font-weight: normal; }
.concepts { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; width: 8rem; } img { width: 8rem; height: 8rem; object-fit: cover; border-radius: 4px; }
.failed { color: #a02020; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818; }
  h2 small, figcaption small { color: #999; } .failed { color: #f08080; } }
"""


def write_summary(library: Library, title: str, filed: Sequence[Filed], path: Path) -> Path:
    """Pictures by name, each with its concepts, or the error that left it out -> the page's path."""
    return atomic_write(path, "\n".join(_page(library, title, sorted(filed, key=lambda one: one.job.name))))


def _page(library: Library, title: str, filed: Sequence[Filed]) -> Iterator[str]:
    failed = sum(1 for one in filed if one.error)
    before = sum(1 for one in filed if one.before)
    concepts = sum(len(one.ids) for one in filed)
    yield "<!DOCTYPE html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
    yield (
        f"<p>{len(filed)} pictures, {concepts} concepts, {failed} left out; {before} were done before. "
        f"Library: {escape(str(library.folder))}</p>"
    )
    for one in filed:
        seconds = f"{one.seconds:.1f} s" if one.seconds else ""
        yield f"<h2>{escape(one.job.name)} <small>{seconds}</small></h2>"
        if one.error:
            yield f'<p class="failed">{escape(one.error)}</p>'
            continue
        yield '<div class="concepts">'
        for number in one.ids:
            yield _figure(library.entry(number), library.thumbnail(number))
        yield "</div>"
    yield "</body></html>\n"


def _figure(entry: Entry, thumbnail: bytes | None) -> str:
    picture = ""
    if thumbnail is not None:
        kind = "png" if thumbnail.startswith(b"\x89PNG") else "jpeg"
        data = base64.b64encode(thumbnail).decode()
        picture = f'<img alt="{escape(entry.label)}" src="data:image/{kind};base64,{data}">'
    read = escape(", ".join(entry.properties.values()))
    caption = f"{escape(entry.key)} <small>#{entry.id}<br>{read}</small>"
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
