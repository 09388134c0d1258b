"""What rules cannot know: names that were chosen by hand."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ALWAYS_PLAIN = (
    "animal", "insect", "beetle", "spider", "worm", "snail", "crab", "plant.2", "bush", "vine", "cactus",
    "fern", "moss", "leaf", "mushroom", "food", "meat", "dessert", "tool", "weapon", "machine", "furniture",
    "vehicle", "boat", "aircraft", "building", "house", "room", "road", "street", "beach", "mountain",
    "forest", "desert", "river", "lake", "sea", "waterfall", "cave", "cliff", "island", "field", "sky",
    "cloud.2", "rock", "sand", "snow", "ice", "water", "fire", "wall", "fence", "gate", "roof", "stairs",
    "pier", "dam", "statue", "fountain", "sculpture", "monument", "tent", "clothing", "shoe", "hat", "tree",
    "flower", "fruit", "vegetable", "grass", "musical instrument", "robot", "fossil", "snowflake", "sun",
    "moon", "rainbow", "smoke",
)  # fmt: skip
"""Noun senses that people name so, and that stand above most of what photographs show."""

ABSTRACT = _words(
    """organism being artifact structure instrumentality device equipment implement object thing matter
    substance material container covering part unit system group product commodity creation whole area
    region facility creature consumer goods vertebrate chordate mammal placental arthropod invertebrate
    herb instrument stuff"""
)
"""Too wide to be a name, however usual."""

NO_PLAIN_NAMES = _words(
    """agent android architecture arsenal art assembly bank billy blanc bling block buck chamber chuck circuit
    colors colours control costume delta dressing eland erica facing female filter gar giant greens
    ground hanging head heath hole holder housing humans internet kit ledge lining load lock lotte
    masterpiece molly mouth opening panel piece queen remains rooms scape setup skin snack spoke square
    stall stein support surface tor transit transport tress vibes vintage virus works light black
    white game press match round drive track release annual court catch goal japan means contact
    screen movement corner setting figure shot target standard scale joint case recording empty journal
    server negative cell filling body well measure cast down local limited spread cross flash coach
    plain steep chains passing file action award die ade rings angle corpse cover root brace braces
    brakes bars hank taping storey crack upgrade footage transportation quarters vein corrie downhill
    vanilla outlet sights clip clips appointment compact retreat ride terminal carrier brass slice stay
    collector automation network"""
)
"""Words that are used for much else than the thing that WordNet knows under them."""

LEFT_OUT = (
    "person", "fabric", "picture", "photograph", "wrongdoer", "unpleasant_person", "unwelcome_person",
    "simpleton", "fool", "slave", "prostitute", "concentration_camp", "contraceptive", "microorganism",
)  # fmt: skip
"""Left out with all below: people (named by hand), what is a material or the medium itself, what a program
should not call anyone, and what no photograph shows."""

RENAMED = {
    "fireplug": "fire hydrant",
    "monitor_(computer_equipment) computer_monitor": "monitor",
    "mouse_(computer_equipment)": "computer mouse",
    "telephone": "phone",
    "glass_(drink_container)": "drinking glass",
    "cock": "rooster",
    "domestic_ass": "donkey",
}
"""LVIS's name -> the one that people type."""

PEOPLE = ("man", "woman", "boy", "girl", "child", "baby")
"""Finer names of "person"; nobody is named by origin, trade, character or looks."""

SLURS = ("ethnic_slur", "disparagement", "obscenity")
"""Usage domains whose words are left out altogether."""

UNSAID = _words(
    """whore dumbass jackass bitch piss pissed gypsy squaw sex sexual sexuality sexually sexy sexism sexist
    nude naked bisexual homosexual porn slut pimp hooker lesbian gay shit damn crap fuck nazi rape raped
    rapist retarded bastard boob boobs tit tits cum horny erotic nipple nipples anal penis vagina"""
)
"""Words that WordNet does not mark and that no picture should be explained by."""

BODY_PARTS = _words(
    """hand face head hair eye ear nose mouth lip tongue tooth cheek chin forehead eyebrow eyelash neck throat
    shoulder chest arm elbow wrist fist palm finger thumb fingernail back belly waist hip leg thigh knee
    calf shin ankle foot heel toe skin fur paw claw hoof tail wing beak feather mane snout whisker trunk
    fin scale antler tusk"""
)
"""Parts of the body that photographs show; offered only to those who ask for them."""
