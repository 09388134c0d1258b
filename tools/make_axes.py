"""Write the color dictionary anew: `python tools/make_axes.py`.

Sources: the answers of the XKCD color survey (Munroe 2010, dedicated to the public under CC0 1.0) and
CSS Color Module Level 4, both as matplotlib holds them. Kept is what a person would say of a thing: a hue,
alone or with one word before it. The other dictionaries are written by hand.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from matplotlib.colors import CSS4_COLORS, XKCD_COLORS

from ice_core.attributes.axes import FOLDER

HEADER = (
    "# Color: the XKCD color survey (xkcd.com/color/rgb, CC0 1.0) and CSS Color Level 4, by matplotlib; "
    "tools/make_axes.py"
)

HUES = """
amber apricot aqua aquamarine azure beige black blue bronze brown burgundy cerulean charcoal chartreuse
chocolate cobalt copper coral cream crimson cyan emerald fuchsia gold green grey indigo ivory jade khaki
lavender lilac lime magenta mahogany maroon mauve mustard navy ochre olive orange orchid peach periwinkle
pink plum purple raspberry red rose ruby russet rust salmon sapphire scarlet sienna silver tan taupe teal
terracotta turquoise ultramarine umber vermilion violet white yellow
"""
"""Words that say a color by themselves."""

UNSAID = """
alice almost antique baby banana barbie barf barney battleship blanched blood bluey booger boring bright
browny bruise carolina clear cloudy cool darkish dirt dirty dodger drab dull easter flat fluro forrest
french fresh frog greeny grey gross highlighter hospital hunter icky indian irish kelley kelly kermit key
kiwi lemon lighter lightish lightly medium mid milk mud muddy murky nasty navajo nice night off old
orangeish orangey ordinary papaya pea peru pig pinky piss poison poo poop primary puke pure purpleish
purpley purply racing radioactive rebecca reddy rich robin's saddle shamrock shit sick sickly slime snot
soft stormy strong swamp tea tealish tiffany toxic tree true turtle ugly vibrant vomit weird windows wine
yellowy
"""
"""Words before a hue that say a judgement, a brand, a person, an offence or nothing; and childish forms."""

SPELLINGS = {"gray": "grey", "vermillion": "vermilion"}
COMPOUND = re.compile(
    "(alice|antique|blue|blush|cadet|cornflower|dark|deep|dim|dodger|forest|ghost|green|hot|indian|lawn|lemon|light|"
    "lime|medium|midnight|mint|misty|navajo|orange|pale|papaya|powder|rebecca|rosy|royal|saddle|sandy|sea|sky|"
    "slate|spring|steel|yellow)(?=[a-z]{3})"
)
"""CSS writes two words as one."""


def spelled(name: str) -> str:
    """One way to write a name: small letters, single spaces, British grey."""
    return " ".join(SPELLINGS.get(word, word) for word in name.lower().split())


def said(name: str) -> bool:
    """Whether a person would call the color of a thing so."""
    *before, hue = name.split()
    hues, unsaid = HUES.split(), UNSAID.split()
    if hue not in hues or len(before) > 1:
        return False
    return not before or (before[0].isalpha() and before[0] not in unsaid and before[0] not in hues)


def colors() -> list[str]:
    """Names in the order of the alphabet, each once."""
    css = (COMPOUND.sub(r"\1 ", name) for name in CSS4_COLORS)
    survey = (name.removeprefix("xkcd:") for name in XKCD_COLORS)
    return sorted({name for name in map(spelled, (*survey, *css)) if said(name)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=FOLDER / "color.txt")
    options = parser.parse_args()
    options.out.write_text("\n".join([HEADER, *colors()]) + "\n", encoding="utf-8", newline="\n")
    print(f"{options.out}: {len(colors())} colors")


if __name__ == "__main__":
    main()
