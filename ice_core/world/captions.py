"""Captions of scenes, varied in grammar, order and detail, with the owner of every word.

They use the words that the method's own prompts use (photo, background, things, color, material,
pattern, a bare kind or property), so that those prompts mean something to the bundled model. A color is
called by its plain name, by a finer one, or by a plain name with "dark", "light" or "pale"; one between two
plain names by a finer one or by both.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ice_core.model.prompts import NEUTRAL_TEMPLATES
from ice_core.world.colors import FINE_NAMES, SECOND_NAMES, difference, mixture
from ice_core.world.scenes import AXES, EXTREMES, GROUNDS, INTRINSIC_AXES, Scene, SceneObject

BACKGROUND = -1
"""Owner of the words that speak of the ground."""

SHADES = ("dark", "light", "pale")
_EXTREME_OF = {"material": "finish", "pattern": "width"}
_PATTERN_NOUNS = {"striped": "stripes", "dotted": "dots", "checked": "checks"}

Claims = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Word:
    """One word; `owners` are object indices, BACKGROUND, or empty for words that point at nothing.

    mix: words and weights (sum 1) whose embedding rows, mixed, stand in this word's place.
    """

    text: str
    owners: tuple[int, ...] = ()
    mix: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Phrase:
    """What a caption claims of one object: axis and value; axes beside the world's own are "fine" (a finer
    color name), "shade" and "second" (the color of a pattern's other paint)."""

    claims: Claims


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
    return all(value in item.words(axis) for axis, value in phrase.claims)


def vocabulary() -> tuple[str, ...]:
    """Every word of the world that means something: kinds, properties, grounds and the axes' own names."""
    values = tuple(v for values in AXES.values() for v in values) + GROUNDS
    extremes = tuple(word for pair in EXTREMES.values() for word in pair)
    return values + tuple(FINE_NAMES) + SHADES + SECOND_NAMES + extremes + INTRINSIC_AXES


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
    """The bare kind or one bare property: "ball", "a red color", "the material of the ball is metal"."""
    item, owner = scene.objects[index], (index,)
    axis = rng.choice(tuple(AXES))
    words, claims = _named(item, index, axis, rng)
    if axis == "kind":
        return Caption(_split(_photo(words, rng)), (Phrase(claims),), None)
    if rng.random() < 0.3:
        # "the color of the ball is red", "the material is wood"
        of = [Word("of the"), Word(item.kind, owner)] if rng.random() < 0.6 else []
        told = [Word("the"), Word(axis, owner), *of, Word("is"), *words]
        kind: Claims = (("kind", item.kind),) if of else ()
        return Caption(_split(told), (Phrase(kind + claims),), None)
    words.append(Word(rng.choice([axis, axis, "object", ""]), owner))
    return Caption(_split(_photo(words, rng)), (Phrase(claims),), None)


def _named(item: SceneObject, index: int, axis: str, rng: random.Random) -> tuple[list[Word], Claims]:
    """Words for one value of an object, and what they claim."""
    owner = (index,)
    if axis != "color":
        word, claimed = Word(item.value(axis), owner), ((axis, item.value(axis)),)
        extreme = item.words(_EXTREME_OF[axis]) if axis in _EXTREME_OF else ()
        if extreme and rng.random() < 0.3:
            return [Word(extreme[0], owner), word], ((_EXTREME_OF[axis], extreme[0]), *claimed)
        return [word], claimed
    names, fine, shade = item.words("color"), item.words("fine"), item.words("shade")
    form = rng.random()
    if fine and form < (0.6 if len(names) > 1 else 0.3):
        return [Word(fine[0], owner)], (("fine", fine[0]),)
    if len(names) > 1:
        both = list(names)
        rng.shuffle(both)
        return [Word(name, owner) for name in both], tuple(("color", name) for name in both)
    plain, claim = Word(names[0], owner), ("color", names[0])
    if shade and form > 0.8:
        return [Word(shade[0], owner), plain], (("shade", shade[0]), claim)
    return [plain], (claim,)


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
    noun = Word(item.kind if with_kind else rng.choice(["thing", "object"]), owner)
    claims: Claims = (("kind", item.kind),) if with_kind else ()
    named: dict[str, list[Word]] = {}
    for axis in axes:
        named[axis], claimed = _named(item, index, axis, rng)
        claims += claimed
    adjectives = [word for axis in axes for word in named[axis]]
    second = item.words("second")
    form = rng.random()
    if form < 0.44:
        words = [*adjectives, noun]
    elif form < 0.62:
        words = [noun, *adjectives]
    elif form < 0.76:
        words = [noun]
        for axis in axes:
            words += [Word(","), *named[axis], Word(axis, owner)]
    elif form < 0.88 and second and "pattern" in axes:
        # "a red metal ball with white stripes"
        paint = [Word(second[0], owner)] if rng.random() < 0.7 else []
        claims += (("second", second[0]),) if paint else ()
        before = [word for axis in axes if axis != "pattern" for word in named[axis]]
        words = [*before, noun, Word("with"), *paint, Word(_PATTERN_NOUNS[item.pattern], owner)]
    else:
        before = named.get("color", [])
        words = [*before, noun]
        for axis in axes:
            if axis == "material":
                made = [Word("material", owner)] if rng.random() < 0.4 else []
                words += [Word("made of a" if made else "made of"), *named[axis], *made]
            elif axis == "pattern":
                words += [Word("with a"), *named[axis], Word("pattern", owner)]
    return words, Phrase(claims)


def mixed(text: Caption, scene: Scene, rng: random.Random, share: float) -> Caption:
    """The caption with a share of its property words in mixtures that say the object's own shade.

    A color's row becomes the mixture of the names around it; a pattern's takes some of "wide" or "narrow"
    in, a material's of "shiny" or "matte". So the space between the words means what lies between them.
    """

    def replaced(word: Word) -> Word:
        axis = _AXIS_OF.get(word.text)
        if len(word.owners) != 1 or axis not in (*INTRINSIC_AXES, "fine") or rng.random() >= share:
            return word
        item = scene.objects[word.owners[0]]
        if axis in ("color", "fine"):
            # Of a color that two plain names share, each alone says too little to be mixed.
            alone = axis == "fine" or len(item.words("color")) == 1
            return replace(word, mix=own_mixture(item, "color")) if alone else word
        mix = own_mixture(item, axis)
        return replace(word, mix=mix) if len(mix) > 1 else word

    return replace(text, words=tuple(map(replaced, text.words)))


def own_mixture(item: SceneObject, axis: str) -> tuple[tuple[str, float], ...]:
    """Words and weights (sum 1) that say an object's own color, material or pattern: its paint's place among
    the names around it; its material with its finish, its pattern with its width."""
    if axis == "color":
        return mixture(item.paint)
    degree, word = item.degree(_EXTREME_OF[axis]), item.value(axis)
    if not degree:
        return ((word, 1.0),)
    end = EXTREMES[_EXTREME_OF[axis]][degree > 0]
    return ((word, 1 - abs(degree) / 2), (end, abs(degree) / 2))


def contradiction(true: Caption, scene: Scene, rng: random.Random) -> Caption | None:
    """The same caption with one attribute of one object changed: a hard negative, or None."""
    spots = [i for i, w in enumerate(true.words) if w.text in _AXIS_OF and w.owners]
    if not spots:
        return None
    at = rng.choice(spots)
    old = true.words[at].text
    axis = _AXIS_OF[old]
    new = rng.choice(_others(axis, old))
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


_VALUES: dict[str, tuple[str, ...]] = {
    **AXES,
    "fine": tuple(FINE_NAMES),
    "shade": SHADES,
    "second": SECOND_NAMES,
    **EXTREMES,
}
_AXIS_OF = {value: axis for axis, values in _VALUES.items() for value in values}


def _others(axis: str, value: str) -> list[str]:
    """Values of the same axis that are clearly something else."""
    if axis == "fine":
        return [v for v in FINE_NAMES if difference(FINE_NAMES[v], FINE_NAMES[value]) > 25]
    return [v for v in _VALUES[axis] if v != value]


def _split(words: list[Word]) -> tuple[Word, ...]:
    """Multi-word pieces ("next to") become one `Word` per word; empty ones vanish."""
    return tuple(replace(w, text=t) for w in words for t in w.text.split())
