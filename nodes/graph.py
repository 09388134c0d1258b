"""What can be known of a graph before it runs, so that a wrong prompt is refused before the queue.

A node's validation sees its own widgets, but not what is linked to it. The host lets packs look at what is
submitted; from there the sources of learned concepts are traced. Whatever cannot be known is let pass:
everything is checked again when the nodes run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ice_core.concepts import unique_key
from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, Token

from .naming import stems
from .values import words_in

EVERY, ONE_PASS, MASKS = "find every object", "given words, one pass", "given masks"
"""Modes of the ICE Attention Segmentor."""
COMPOSER, LIBRARY, LOADER, RETRIEVER, SEGMENTOR, TRAINER = (
    "ICEConceptComposer", "ICELibraryConcept", "ICELoadConcepts", "ICEConceptRetriever",
    "ICEAttentionSegmentor", "ICEIntrinsicTrainer",
)  # fmt: skip
ALIASES = ("a", "b", "c", "d", "e", "f", "g", "h")
"""Inputs of the ICE Concept Composer for learned concepts."""

Graph = Mapping[str, Any]
_ROLES = ("object", "instance")
_ANY = "<object>"
_LISTED = 12
"""So many names of things, and twice as many placeholders, are written out in an error."""

# Per context and not global: the host validates a graph in the task that received it, and two may come
# at the same time.
_submitted: ContextVar[Graph] = ContextVar("ice_submitted", default={})  # noqa: B039


def remember(request: dict[str, Any]) -> dict[str, Any]:
    """The host's on-prompt handler: keeps the submitted graph, and passes the request on as it is."""
    graph = request.get("prompt")
    _submitted.set(graph if isinstance(graph, dict) else {})
    return request


def submitted_inputs(node_id: str | None, class_type: str) -> Mapping[str, Any]:
    """Inputs of a node of the submitted graph, values and [node, output] links; {} when unknown."""
    return inputs_of_node(_submitted.get(), node_id, class_type)


def inputs_of_node(graph: Graph, node_id: Any, class_type: str) -> Mapping[str, Any]:
    """The same of any graph."""
    node = graph.get(str(node_id))
    if not isinstance(node, dict) or node.get("class_type") != class_type:
        return {}
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def _source(graph: Graph, link: Any, class_type: str, output: int) -> Mapping[str, Any]:
    """Inputs of the node that a link comes from, when it is that output of such a node."""
    if not isinstance(link, (list, tuple)) or len(link) != 2 or link[1] != output:
        return {}
    return inputs_of_node(graph, link[0], class_type)


@dataclass(frozen=True)
class Name:
    """A placeholder that a source has, or may have. shown: for people; pattern: a regular expression of
    all names that it stands for; stems: what its group `key` may be but for its number, None for anything."""

    shown: str
    pattern: str
    stems: frozenset[str] | None = None

    def covers(self, name: str) -> bool:
        """Whether a placeholder may mean this one; capital letters do not count."""
        match = re.fullmatch(self.pattern, name, re.IGNORECASE)
        if match is None or self.stems is None:
            return match is not None
        key = match["key"].lower()
        return key in self.stems or re.sub(r"-\d+$", "", key) in self.stems


OnDisk = Callable[[str], Sequence[str]]
"""What a prompt may name of a folder of ICE Load Concepts; raises IceError where it holds nothing."""
InLibrary = Callable[[str, str], Sequence[str]]
"""The same of what ICE Library Concept takes by a name and by words."""


def loaded_folder(link: Any, graph: Graph) -> str | None:
    """The folder or concept set that a link's learned concepts are loaded from; None for others."""
    folder = _source(graph, link, LOADER, 0).get("folder")
    return folder if isinstance(folder, str) else None


def learned_names(
    link: Any, on_disk: OnDisk, graph: Graph | None = None, in_library: InLibrary | None = None
) -> tuple[Name, ...] | None:
    """What the learned concepts of a link may be called; None when that cannot be known."""
    graph = _submitted.get() if graph is None else graph
    folder = loaded_folder(link, graph)
    taken = _source(graph, link, LIBRARY, 0)
    concept, words = taken.get("concept"), taken.get("search")
    try:
        if folder is not None:
            return tuple(Name(name, re.escape(name)) for name in on_disk(folder))
        if in_library is not None and isinstance(concept, str) and isinstance(words, str):
            return tuple(Name(name, re.escape(name)) for name in in_library(concept, words))
    except IceError:
        return None
    trainer = _source(graph, link, TRAINER, 0)
    axes = trainer.get("axes")
    if not isinstance(axes, str):
        return None
    roles = (*_ROLES, *(word.partition("=")[0].strip() for word in words_in(axes)))
    keys = _keys(graph, trainer.get("concepts"))
    parts = [Name(f"{k.shown}.{r}", rf"{k.pattern}\.{re.escape(r)}", k.stems) for k in keys for r in roles]
    # An object that may be called anything: what follows a dot is a property, which has to exist.
    whole = [
        Name(k.shown, rf"(?!.*\.[^-]){k.pattern}" if k.shown == _ANY else k.pattern, k.stems) for k in keys
    ]
    return (*whole, *parts)


def _keys(graph: Graph, link: Any) -> list[Name]:
    """What the objects of a link of concepts may be called."""
    segmentor = _source(graph, link, SEGMENTOR, 0)
    mode, labels = segmentor.get("mode"), segmentor.get("labels")
    words = words_in(labels) if isinstance(labels, str) else []
    if mode == MASKS and words:
        keys: dict[str, None] = {}
        for word in words:
            keys[unique_key(word, keys)] = None
        return [Name(key, re.escape(key)) for key in keys]
    if mode == ONE_PASS and words:
        return [_counted(stem) for stem in dict.fromkeys(unique_key(word, {}) for word in words)]
    known = _vocabulary(graph, segmentor.get("words")) if mode in (EVERY, MASKS) else None
    if known is not None and len(known) <= _LISTED:
        return [_counted(stem) for stem in sorted(known)]
    # "b.ball" is an input that is not connected, not an object of that name.
    return [Name(_ANY, r"(?P<key>(?![a-h]\.[^-]).+)", known)]


def _counted(stem: str) -> Name:
    """A thing that may be there several times."""
    return Name(stem, re.escape(stem) + r"(-\d+)?")


def _vocabulary(graph: Graph, link: Any) -> frozenset[str] | None:
    """What a retriever may name things; None when that cannot be known."""
    retriever = _source(graph, link, RETRIEVER, 0)
    source, text = retriever.get("source"), retriever.get("vocabulary")
    if not isinstance(source, str) or not isinstance(text, str):
        return None
    try:
        return stems(source, text)
    except IceError:
        return None


def check_prompt(text: str, sources: Mapping[str, tuple[Name, ...] | None]) -> None:
    """Raise IceError for a prompt that no run of the graph could give a meaning.

    sources: what is known of the concepts connected to each alias, None where nothing is.
    """
    if not text.strip():
        raise IceError('the prompt is empty: write for example "a photo of a {ball}"')
    wanted = Prompt.placeholders(text)
    Prompt.parse(text, {name: Token(name, {}) for name in wanted})
    for name in wanted:
        if not any(_covers(names, rest) for names, rest in _readings(name.lower(), sources)):
            raise IceError(
                f"the prompt names {{{name}}}{_unread(name, sources)}; {_there_are(name, sources)}"
            )


def _readings(
    name: str, sources: Mapping[str, tuple[Name, ...] | None]
) -> list[tuple[tuple[Name, ...] | None, str]]:
    """Sources that a placeholder may be of, with its name there; a single source needs no alias."""
    readings = [
        (names, name.removeprefix(f"{alias}."))
        for alias, names in sources.items()
        if name.startswith(f"{alias}.")
    ]
    return readings + [(names, name) for names in sources.values() if len(sources) == 1]


def _unread(name: str, sources: Mapping[str, tuple[Name, ...] | None]) -> str:
    """What is wrong with a name: its input is not connected, or the object is there without this property."""
    alias, _, rest = name.partition(".")
    if sources and alias in ALIASES and rest and alias not in sources:
        return f", but nothing is connected to {alias}"
    thing, _, role = name.rpartition(".")
    if any(names and _covers(names, rest) for names, rest in _readings(thing, sources)):
        return f", but {role!r} could not be read of this object, or was not asked for"
    return ""


def _covers(names: tuple[Name, ...] | None, name: str) -> bool:
    return names is None or any(known.covers(name) for known in names)


def _there_are(name: str, sources: Mapping[str, tuple[Name, ...] | None]) -> str:
    """The placeholders that a wrong one may have meant, the nearest of them where there are many."""
    if not sources:
        return "but no learned concepts are connected: connect them to a, b, ..."
    every = [
        f"{alias}.{known.shown}"
        for alias, names in sources.items()
        for known in (names if names is not None else (Name(_ANY, ""), Name(f"{_ANY}.<object or axis>", "")))
    ]
    few = len(every) <= 2 * _LISTED
    shown = ", ".join(f"{{{one}}}" for one in every) if few else _nearest(name, every)
    words = {stem for names in sources.values() for known in names or () for stem in known.stems or ()}
    thing = max(name.lower().split("."), key=len)
    meant = ", ".join(f"{{{one}}}" for one in get_close_matches(thing, words, 4, 0.6))
    hint = f"; objects are named by words of the vocabulary, such as {meant}" if meant else ""
    return f"there are: {shown}{hint}"


def offered(sources: Mapping[str, tuple[Name, ...] | None]) -> list[str]:
    """What may stand in braces, for a list to choose from: names that are known as they are."""
    return [
        known.shown if len(sources) == 1 else f"{alias}.{known.shown}"
        for alias, names in sources.items()
        for known in names or ()
        if not known.shown.startswith(_ANY)
    ]


def _nearest(name: str, every: Sequence[str]) -> str:
    """The things that are spelled most like a name, and what all of them may have."""
    whole = {one for one in every if f"{one}.object" in every}
    parts = dict.fromkeys(one.rpartition(".")[2] for one in every if one not in whole)
    near = get_close_matches(name, sorted(whole), _LISTED, 0)
    return (
        f"{', '.join(f'{{{one}}}' for one in near)}, and with .{', .'.join(parts)} behind them a part of each"
    )


def missing_lora(link: Any, graph: Graph | None = None) -> bool:
    """Whether a LoRA's link comes from a training whose refinement is off: the host would then skip, in
    silence, every node that the link leads to."""
    graph = _submitted.get() if graph is None else graph
    return _source(graph, link, TRAINER, 1).get("refine_steps") == 0
