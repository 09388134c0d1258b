"""Captions of scenes, varied in grammar, order and detail, with the owner of every word.

They use the words that the method's own prompts use (photo, background, things, color, material,
pattern, a bare kind or property), so that those prompts mean something to the bundled model.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ice_core.model.prompts import NEUTRAL_TEMPLATES
from ice_core.world.scenes import AXES, INTRINSIC_AXES, Scene, SceneObject

BACKGROUND = -1
"""Owner of the words that speak of the ground."""


@dataclass(frozen=True)
class Word:
    """One word; `owners` are object indices, BACKGROUND, or empty for words that point at nothing."""

    text: str
    owners: tuple[int, ...] = ()


@dataclass(frozen=True)
class Phrase:
    """What a caption claims of one object: axis -> value, for the axes it names."""

    claims: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Caption:
    """words: in order; phrases: one per object spoken of; ground: the ground if it is named."""

    words: tuple[Word, ...]
    phrases: tuple[Phrase, ...]
    ground: str | None

    @property
    def text(self) -> str:
        return " ".join(w.text for w in self.words)

    def is_true_of(self, scene: Scene, visible: tuple[int, ...] | None = None) -> bool:
        """Whether every claim holds for some visible object, and the ground is as named."""
        if self.ground is not None and self.ground != scene.ground:
            return False
        items = [o for i, o in enumerate(scene.objects) if visible is None or i in visible]
        return all(any(_fits(o, p) for o in items) for p in self.phrases)


def _fits(item: SceneObject, phrase: Phrase) -> bool:
    return all(item.value(axis) == value for axis, value in phrase.claims)


def vocabulary() -> tuple[str, ...]:
    """Every word of the world that names something: kinds, properties and grounds."""
    from ice_core.world.scenes import GROUNDS

    return tuple(v for values in AXES.values() for v in values) + GROUNDS


def caption(scene: Scene, rng: random.Random, visible: tuple[int, ...] | None = None) -> Caption:
    """A random true caption of a scene, silent about objects that are not in `visible`.

    Full captions name every visible object, so that the number of things in a picture obeys its
    prompt; "<concept> things background" names one kind of thing among others.
    """
    indices = list(range(len(scene.objects))) if visible is None else list(visible)
    if not indices:
        return _ground_only(scene, rng)
    rng.shuffle(indices)
    form = rng.random()
    if form < 0.14:
        return _things(scene, indices, rng)
    if len(indices) == 1 and form < 0.34:
        return _bare(scene, indices[0], rng)
    words: list[Word] = []
    phrases: list[Phrase] = []
    for n, i in enumerate(indices):
        if n:
            words.append(Word(rng.choice(["and", "and", ",", "next to", "beside"])))
            if rng.random() < 0.6:
                words.append(Word("a"))
        described, phrase = _describe(scene.objects[i], i, rng)
        words += described
        phrases.append(phrase)
    ground = scene.ground if rng.random() < 0.6 else None
    words = _photo(words, rng)
    if ground:
        words += _on(ground, rng)
    return Caption(_split(words), tuple(phrases), ground)


def _photo(words: list[Word], rng: random.Random) -> list[Word]:
    """Put a description into a photo template half of the time."""
    if rng.random() < 0.55:
        template = rng.choice(NEUTRAL_TEMPLATES).split("{}")[0].strip()
        return [Word(template), *words]
    return [Word(rng.choice(["a", "the", "one", ""])), *words]


def _on(ground: str, rng: random.Random) -> list[Word]:
    owner = (BACKGROUND,)
    form = rng.randrange(4)
    if form == 0:
        return [Word("on"), Word(ground, owner)]
    if form == 1:
        return [Word("on a"), Word(ground, owner), Word("ground", owner)]
    if form == 2:
        return [Word("with a"), Word(ground, owner), Word("background", owner)]
    return [Word(","), Word(ground, owner), Word("background", owner)]


def _ground_only(scene: Scene, rng: random.Random) -> Caption:
    words = _photo(_on(scene.ground, rng)[-2:], rng)
    return Caption(_split(words), (), scene.ground)


def _bare(scene: Scene, index: int, rng: random.Random) -> Caption:
    """The bare kind or one bare property: "ball", "a red color", "metal"."""
    item, owner = scene.objects[index], (index,)
    axis = rng.choice(tuple(AXES))
    value = item.value(axis)
    words = [Word(value, owner)]
    if axis != "kind":
        noun = rng.choice([axis, axis, "object", ""])
        words += [Word(noun, owner)]
    return Caption(_split(_photo(words, rng)), (Phrase(((axis, value),)),), None)


def _things(scene: Scene, indices: list[int], rng: random.Random) -> Caption:
    """ "<concept> things background": everything that fits the concept owns it, the rest are things."""
    item = scene.objects[indices[0]]
    axes = ["kind"] if rng.random() < 0.75 else [rng.choice(INTRINSIC_AXES)]
    if axes == ["kind"] and rng.random() < 0.3:
        axes = [rng.choice(INTRINSIC_AXES), "kind"]
    phrase = Phrase(tuple((a, item.value(a)) for a in axes))
    owners = tuple(i for i in sorted(indices) if _fits(scene.objects[i], phrase))
    rest = tuple(i for i in sorted(indices) if i not in owners)
    named = rng.random() < 0.3
    words = [Word(value, owners) for _, value in phrase.claims]
    words.append(Word("things", rest))
    if named:
        words.append(Word(scene.ground, (BACKGROUND,)))
    words.append(Word("background", (BACKGROUND,)))
    return Caption(_split(words), (phrase,), scene.ground if named else None)


def _describe(item: SceneObject, index: int, rng: random.Random) -> tuple[list[Word], Phrase]:
    """One object in one of several grammars."""
    owner = (index,)
    detail = rng.random()
    keep = 1.0 if detail < 0.45 else 0.55
    axes = [a for a in INTRINSIC_AXES if rng.random() < keep]
    if item.pattern == "plain" and "pattern" in axes and rng.random() < 0.5:
        axes.remove("pattern")
    rng.shuffle(axes)
    with_kind = rng.random() < 0.9 or not axes
    claims = ([("kind", item.kind)] if with_kind else []) + [(a, item.value(a)) for a in axes]
    noun = Word(item.kind if with_kind else rng.choice(["thing", "object"]), owner)
    adjectives = [Word(item.value(a), owner) for a in axes]
    form = rng.random()
    if form < 0.5:
        words = [*adjectives, noun]
    elif form < 0.72:
        words = [noun, *adjectives]
    elif form < 0.86:
        words = [noun]
        for axis in axes:
            words += [Word(","), Word(item.value(axis), owner), Word(axis, owner)]
    else:
        before = [Word(item.value(a), owner) for a in axes if a == "color"]
        words = [*before, noun]
        for axis in axes:
            if axis == "material":
                words += [Word("made of"), Word(item.material, owner)]
            elif axis == "pattern":
                words += [Word("with a"), Word(item.pattern, owner), Word("pattern", owner)]
    return words, Phrase(tuple(claims))


def contradiction(true: Caption, scene: Scene, rng: random.Random) -> Caption | None:
    """The same caption with one attribute of one object changed: a hard negative, or None."""
    spots = [i for i, w in enumerate(true.words) if w.text in _AXIS_OF and w.owners]
    if not spots:
        return None
    at = rng.choice(spots)
    old = true.words[at].text
    axis = _AXIS_OF[old]
    new = rng.choice([v for v in AXES[axis] if v != old])
    words = tuple(replace(w, text=new) if i == at else w for i, w in enumerate(true.words))
    owners = set(true.words[at].owners)
    changed = []
    done = False
    for phrase in true.phrases:
        hit = (axis, old) in phrase.claims and not done
        hit = hit and any(_fits(scene.objects[i], phrase) for i in owners)
        if hit:
            done = True
            claims = tuple((a, new if a == axis else v) for a, v in phrase.claims)
            changed.append(Phrase(claims))
        else:
            changed.append(phrase)
    return Caption(words, tuple(changed), true.ground)


_AXIS_OF = {value: axis for axis, values in AXES.items() for value in values}


def _split(words: list[Word]) -> tuple[Word, ...]:
    """Multi-word pieces ("next to") become one `Word` per word; empty ones vanish."""
    return tuple(replace(w, text=t) for w in words for t in w.text.split())
