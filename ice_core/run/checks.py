"""What cannot work is said before any work."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ice_core.composition import described, showcase_prompts
from ice_core.concepts import LearnedConcept, unique_key
from ice_core.errors import IceError
from ice_core.files.embeddings import check_names, file_name
from ice_core.files.names import check_name, parts_of
from ice_core.localization.retrieval.dictionary import Vocabulary
from ice_core.model.backbone import Backbone, Prompt, Token
from ice_core.model.noising import fill
from ice_core.model.prompts import NEUTRAL_TEMPLATES
from ice_core.training.config import TrainingConfig

MAX_LABEL_BYTES = 150
"""Of a label in UTF-8, so that an axis and a count fit into the same file's name."""
_ALWAYS_FITS = 16
"""Bytes of a word that is in no way too long: a tokenizer makes no more pieces than there are bytes."""


def check_labels(labels: Sequence[str], axes: Sequence[str]) -> None:
    """Raise IceError when tokens of these words could not be saved under their names."""
    keys: set[str] = set()
    for label in labels:
        if not label.strip():
            raise IceError("one of the labels is empty; write for example --labels ball,cube")
        _check_label_length(label)
        keys.add(unique_key(label.strip(), keys))
    # Without labels the objects' names are not known yet, but the axes are.
    check_names(sorted(keys) or ["ball"], axes)


def _check_label_length(label: str) -> None:
    size = len(label.encode("utf-8", "surrogatepass"))
    if size > MAX_LABEL_BYTES:
        raise IceError(
            f"the label '{label[:30]}...' is {size} bytes long; use one of at most {MAX_LABEL_BYTES}"
        )


def check_vocabulary(vocabulary: Vocabulary, axes: Sequence[str]) -> list[str]:
    """The words that an object may be given; IceError when nothing could be saved under one of them."""
    longest = max((*axes, "instance"), key=len)
    flagged = zip(vocabulary.words, vocabulary.nameable, strict=True)
    names = [word for word, nameable in flagged if nameable]
    bad = [word for word in names if not _can_be_saved(word, longest)]
    if bad:
        shown = ", ".join(repr(word[:40]) for word in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise IceError(
            f"{len(bad)} of the words cannot name a file: {shown}; leave them out, or write them "
            "without slashes, braces and punctuation"
        )
    return names


def _can_be_saved(word: str, role: str) -> bool:
    key = unique_key(word, {})
    try:
        _check_label_length(word)
        check_name(key)
        check_name(file_name(key, role))
    except IceError:
        return False
    return len(parts_of(key)) == 1


def check_prompts(
    backbone: Backbone, config: TrainingConfig, words: Sequence[str], templates: Sequence[str] = ("{}",)
) -> None:
    """Raise IceError when a prompt of a run is longer than the model's text encoders take.

    words: what objects may be called; templates: what the method puts them into.
    """
    rows = {name: torch.zeros(1, width) for name, width in backbone.encoders.items()}
    tokens = {role: Token(role, rows) for role in ("instance", "object", *config.axes)}
    intrinsics = {axis: tokens[axis] for axis in config.axes}
    shown = LearnedConcept("", "", tokens["instance"], tokens["object"], intrinsics)
    every = [fill(template, described(shown)) for template in (*config.templates, *NEUTRAL_TEMPLATES)]
    every += [prompt for _, prompt in showcase_prompts(shown)]
    too_long = f"{len(config.axes)} axes are too many: an object's prompt names them all; give fewer"
    _check_encodes(backbone, [max(every, key=lambda prompt: _pieces(backbone, prompt))], too_long)
    if words:
        long = [word for word in words if len(word.encode()) > _ALWAYS_FITS] or words[:1]
        word = max(long, key=lambda word: _pieces(backbone, Prompt((word,))))
        prompts = [Prompt((template.format(word),)) for template in templates]
        _check_encodes(backbone, prompts, f"the name '{word[:60]}' is too long for the model; shorten it")


def _pieces(backbone: Backbone, prompt: Prompt) -> int:
    """Places that a prompt takes in the text encoder that needs most."""
    parts = [part.rows if isinstance(part, Token) else backbone.word_rows(part) for part in prompt.parts]
    return max(sum(len(rows[name]) for rows in parts) for name in backbone.encoders)


@torch.no_grad()
def _check_encodes(backbone: Backbone, prompts: Sequence[Prompt], problem: str) -> None:
    try:
        backbone.encode_prompts(prompts)
    except IceError as error:
        raise IceError(f"{problem} ({error})") from error
