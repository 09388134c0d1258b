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
from typing import Any

from ice_core.concepts import unique_key
from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, Token

from .values import words_in

EVERY, ONE_PASS, MASKS = "find every object", "given words, one pass", "given masks"
"""Modes of the ICE Attention Segmentor."""
COMPOSER, LOADER, SEGMENTOR, TRAINER = (
    "ICEConceptComposer", "ICELoadConcepts", "ICEAttentionSegmentor", "ICEIntrinsicTrainer",
)  # fmt: skip

Graph = Mapping[str, Any]
_ROLES = ("object", "instance")
_ANY = "<object>"

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
    return _inputs(_submitted.get(), node_id, class_type)


def _inputs(graph: Graph, node_id: Any, class_type: str) -> Mapping[str, Any]:
    node = graph.get(str(node_id))
    if not isinstance(node, dict) or node.get("class_type") != class_type:
        return {}
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def _source(graph: Graph, link: Any, class_type: str, output: int) -> Mapping[str, Any]:
    """Inputs of the node that a link comes from, when it is that output of such a node."""
    if not isinstance(link, (list, tuple)) or len(link) != 2 or link[1] != output:
        return {}
    return _inputs(graph, link[0], class_type)


@dataclass(frozen=True)
class Name:
    """A placeholder that a source has, or may have. shown: for people; pattern: a regular expression of
    all names that it stands for."""

    shown: str
    pattern: str

    def covers(self, name: str) -> bool:
        return re.fullmatch(self.pattern, name) is not None


OnDisk = Callable[[str], Sequence[str]]
"""What a prompt may name of a folder of ICE Load Concepts; raises IceError where it holds nothing."""


def learned_names(link: Any, on_disk: OnDisk, graph: Graph | None = None) -> tuple[Name, ...] | None:
    """What the learned concepts of a link may be called; None when that cannot be known."""
    graph = _submitted.get() if graph is None else graph
    folder = _source(graph, link, LOADER, 0).get("folder")
    if isinstance(folder, str):
        try:
            return tuple(Name(name, re.escape(name)) for name in on_disk(folder))
        except IceError:
            return None
    trainer = _source(graph, link, TRAINER, 0)
    axes = trainer.get("axes")
    if not isinstance(axes, str):
        return None
    roles = (*_ROLES, *(word.partition("=")[0].strip() for word in words_in(axes)))
    keys = _keys(graph, trainer.get("concepts"))
    parts = [Name(f"{k.shown}.{r}", rf"{k.pattern}\.{re.escape(r)}") for k in keys for r in roles]
    # An object that may be called anything: what follows a dot is a property, which has to exist.
    whole = [Name(k.shown, rf"(?!.*\.[^-]){k.pattern}" if k.shown == _ANY else k.pattern) for k in keys]
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
        stems = dict.fromkeys(unique_key(word, {}) for word in words)
        return [Name(stem, re.escape(stem) + r"(-\d+)?") for stem in stems]
    # "b.ball" is an input that is not connected, not an object of that name.
    return [Name(_ANY, r"(?![a-h]\.[^-]).+")]


def check_prompt(text: str, sources: Mapping[str, tuple[Name, ...] | None]) -> None:
    """Raise IceError for a prompt that no run of the graph could give a meaning.

    sources: what is known of the concepts connected to each alias, None where nothing is.
    """
    if not text.strip():
        raise IceError('the prompt is empty: write for example "a photo of a {ball}"')
    wanted = Prompt.placeholders(text)
    Prompt.parse(text, {name: Token(name, {}) for name in wanted})
    for name in wanted:
        if not any(_covers(names, rest) for names, rest in _readings(name, sources)):
            raise IceError(f"the prompt names {{{name}}}{_unread(name, sources)}; {_there_are(sources)}")


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
    """What is wrong with a property of an object that is there."""
    thing, _, role = name.rpartition(".")
    if any(names and _covers(names, rest) for names, rest in _readings(thing, sources)):
        return f", but {role!r} could not be read of this object, or was not asked for"
    return ""


def _covers(names: tuple[Name, ...] | None, name: str) -> bool:
    return names is None or any(known.covers(name) for known in names)


def _there_are(sources: Mapping[str, tuple[Name, ...] | None]) -> str:
    if not sources:
        return "but no learned concepts are connected: connect them to a, b, ..."
    shown = [
        f"{{{alias}.{name.shown}}}"
        for alias, names in sources.items()
        for name in (names if names is not None else (Name(_ANY, ""), Name(f"{_ANY}.<object or axis>", "")))
    ]
    return f"there are: {', '.join(shown)}"


def missing_lora(link: Any, graph: Graph | None = None) -> bool:
    """Whether a LoRA's link comes from a training whose refinement is off: the host would then skip, in
    silence, every node that the link leads to."""
    graph = _submitted.get() if graph is None else graph
    return _source(graph, link, TRAINER, 1).get("refine_steps") == 0
