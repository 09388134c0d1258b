"""The method that trains nothing: an object's tokens are the words that were read of it."""

from __future__ import annotations

from ice_core.concepts import ConceptSet, Readings
from ice_core.model.backbone import Backbone, Token
from ice_core.training.config import TrainingConfig
from ice_core.training.state import TrainingState, begin, learnable_axes


def begin_words(
    backbone: Backbone, concepts: ConceptSet, config: TrainingConfig, readings: Readings
) -> TrainingState:
    """The end already: a token holds the rows [n, D] of the n pieces of its word, so that a prompt with it is
    the prompt with the word."""
    tokens = []
    for concept in concepts.concepts:
        of = readings.get(concept.key, {})
        tokens.append(Token(f"{concept.key}.object", backbone.word_rows(concept.label)))
        for axis in learnable_axes(config, of):
            value = of[axis].value
            assert value is not None
            tokens.append(Token(f"{concept.key}.{axis}", backbone.word_rows(value)))
    return begin(backbone, concepts, config, tokens, readings)
