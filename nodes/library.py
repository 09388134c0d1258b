"""The node that takes a concept out of the library."""

from __future__ import annotations

from comfy_api.latest import io, ui
from torch import Tensor

from ice_core.errors import IceError
from ice_core.library.entries import Entry

from .graph import LIBRARY
from .places import PicturedConcepts
from .shelf import SHELF, named
from .types import Learned, schema
from .values import say


class LibraryConcept(io.ComfyNode):
    """A concept by its name, its number, or words to search for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=LIBRARY,
            display_name="ICE Library Concept",
            description="Takes a concept out of the library, by its name or by words. The panel of the "
            "library puts this node into the graph.",
            shows_result=True,
            search_aliases=["load concept", "concept library", "search concepts", "saved concepts"],
            inputs=[
                io.String.Input(
                    "concept",
                    default="",
                    tooltip="Its name with its number, as the panel writes it: vase #12. A name alone means "
                    "the newest of this name. Left blank, `search` decides.",
                ),
                io.String.Input(
                    "search",
                    default="",
                    tooltip="Words that must all begin a word of name, readings, tags, title or base model, "
                    "for example red metal. Without a name the best match is taken.",
                ),
            ],
            outputs=[
                Learned.Output(display_name="learned", tooltip="For the ICE Concept Composer."),
                io.String.Output(
                    display_name="names",
                    tooltip="What a prompt may name, one per line: the whole object, and its tokens.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, concept: str | None, search: str | None) -> bool | str:
        """Refuse before the queue runs what the library does not have, unless a wire brings it."""
        if concept is None or search is None:
            return True
        try:
            SHELF.pick(concept, search)
        except IceError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, concept: str | None, search: str | None) -> str:
        """Changes when another concept is meant, in this library or another one."""
        if concept is None or search is None:
            return ""
        try:
            entry, _ = SHELF.pick(concept, search)
        except IceError:
            return ""
        return f"{SHELF.folder().absolute()} {entry.id} {entry.added}"

    @classmethod
    def execute(cls, concept: str, search: str) -> io.NodeOutput:
        from ice_core.composition import placeholders

        entry, others = SHELF.pick(concept, search)
        learned = PicturedConcepts.of(SHELF.taken(entry))
        names = "\n".join(placeholders(*learned.concepts))
        also = f", one of {others + 1} that fit" if others else ""
        shown = f"{named(entry)}{also}\n{names}"
        say(shown)
        told = ui.PreviewText(shown).as_dict()
        if (picture := _thumbnail(entry)) is not None:
            told |= ui.PreviewImage(picture, cls=cls).as_dict()
        return io.NodeOutput(learned, names, ui=told)


def _thumbnail(entry: Entry) -> Tensor | None:
    """IMAGE of the concept as the panel shows it; None where there is none that can be read."""
    from ice_core.files.images import image_from_bytes

    data = SHELF.opened().thumbnail(entry.id)
    try:
        return None if data is None else image_from_bytes(data, named(entry)).movedim(0, -1)[None]
    except IceError:
        return None
