"""What the questions are about: things and acts by field, invented things, and which of them are
held out.

Expands templates: `[a|b]` picks one alternative (they nest), the caller fills `{slot}`.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

HELD_OUT_EVERY = 8

_THINGS = {
    "food": """fresh bread|tomato soup|green tea|sourdough bread|boiled eggs|brown rice|apple pie|honey|olive oil|
        roast potatoes|pancakes|chicken soup|dark chocolate|goat cheese|strawberry jam|spicy noodles|mushroom sauce|
        oat porridge|garlic butter|coffee beans|lemon cake|black pepper|onion soup|pasta water|cooked rice|butter|yogurt|
        a birthday cake|a picnic basket|banana bread|carrot salad|sea salt|peanut butter|herbal tea|a bowl of cereal|wild mushrooms|
        ginger cookies|vegetable curry|maple syrup|pea soup|a cheese board|cold milk|rye bread|cherry jam|bean stew""",
    "place": """the Great Wall|Lisbon|the Sahara|Canada|southern Spain|the Danube|Mount Fuji|Switzerland|the old harbor|
        the city library|a mountain village|the Baltic Sea|Iceland|Paris|the local museum|the town square|the nearest beach|
        Australia|the Amazon|New York|the desert|the North Pole|a quiet island|the railway station|Kyoto|Venice|the lake|
        the hotel|Norway|Cairo|a seaside town|the botanical garden|the old bridge|Scotland|the castle|Tokyo|Kenya|Greece|Peru""",
    "animal": """cats|dogs|whales|spiders|penguins|honey bees|bats|migrating birds|horses|squirrels|goldfish|owls|elephants|
        sea turtles|a pet snake|a stray dog|a gray kitten|a parrot|wild rabbits|butterflies|ants|foxes|dolphins|wolves|moths|
        house mice|sheep|a guinea pig|frogs|salmon|beavers|an old donkey|eagles|hedgehogs|crows|a puppy|bears|ducks|lizards""",
    "garden": """roses|tomato plants|a cactus|tulip bulbs|garden compost|basil|an apple tree|mulch|ivy|lavender|the lawn|
        a vegetable bed|oak trees|sunflowers|autumn leaves|moss|bamboo|a hedge|pumpkins|strawberry plants|orchids|weeds|
        a flower bed|ferns|cherry trees|potted herbs|a garden pond|green beans|the rain barrel|wheat|houseplants|seedlings""",
    "tool": """a bicycle pump|a torque wrench|a kitchen knife|a cheap drill|a pressure cooker|a washing machine|a wooden door|
        a raincoat|a cast-iron pan|a vacuum cleaner|a sewing machine|a sharp saw|a hammer|a car tire|a bicycle chain|
        a radio|a camera|the old phone|a laptop|a printer|an umbrella|a tent|a ladder|a winter coat|wool sweaters|leather shoes|
        a suitcase|a desk lamp|a wall clock|a water filter|a paint brush|a travel adapter|a used car|an old motorcycle|a sofa|
        a screwdriver|a backpack|a helmet|a sleeping bag|a bookshelf|the kitchen sink|a toaster|a pocket watch|a rowing boat""",
    "science": """gravity|the moon|the tides|rainbows|the speed of light|the boiling point of water|magnets|earthquakes|
        the planets|the solar system|volcanoes|electricity|atoms|the weather|thunder|clouds|dreams|memory|leap years|the ozone layer|
        photosynthesis|prime numbers|compound interest|the human heart|bones|sound waves|fossils|comets|snowflakes|the sun|
        sleep|yawning|the sky|ice ages|the stars|friction|oxygen|glaciers|the water cycle|mirrors""",
    "history": """the first railway|Roman aqueducts|the printing press|the moon landing|the steam engine|Napoleon|
        the Industrial Revolution|ancient Egypt|the Silk Road|medieval castles|the first Olympic Games|the Vikings|
        the Renaissance|old maps|the telegraph|the Bronze Age|sailing ships|the first airplane|Viking ships|the pyramids|
        the history of paper|the history of money|the capital of Canada|the capital of Peru|the old kings|the postal service""",
    "art": """the Moonlight Sonata|jazz|opera|the violin|a folk song|the piano|an old guitar|oil paintings|my poem|a short story|
        a birthday message|a thank-you note|the flute|modern dance|a family photo|a photo album|a wedding speech|street music|
        the cello|a crime novel|a black and white film|the choir|a school play|watercolors|a love letter|a stage play|
        a book club|the novel|a calm song|the drums|a limerick|a song about rain""",
    "people": """my neighbor|my boss|my brother|a new colleague|my best friend|my daughter|my uncle|the teacher|my cousin|
        my roommate|a lost tourist|the mayor|a coach|the losing team|a beginner|an old man|my aunt|the librarian|my grandmother|
        the customers|people who ask for help|volunteers|a shy child|strangers|my parents|the winners|a poor family|my partner""",
    "money": """my savings|a monthly budget|the grocery bill|a gym membership|a magazine subscription|my holiday plan|
        a job offer|a small loan|the electricity bill|prize money|my weekly shopping|the train ticket|a garage sale|
        an online course|a job application|my report|a packing list|the timetable|the new contract|a cheap flight|
        the price of bread|my house|a rented room|an interview|a team meeting|the work schedule""",
}

_ACTS = {
    "food": """boil an egg|bake bread|roast potatoes|brew coffee|cook rice|make tomato soup|store fresh fruit|cut an onion|
        bake a cake|thaw frozen soup|eat less sugar|fast for a day|try very spicy noodles|stop eating meat|season a stew|
        eat cake for breakfast|make pasta by hand|grill vegetables|freeze bread|peel garlic|drink four coffees a day""",
    "place": """travel alone|walk across Lisbon|visit the mountains|camp by the lake|pack for a long trip|hike alone in the hills|
        find a cheap hotel|take a solo road trip|cycle to work|move to another city|swim in the cold sea|live in a van|
        plan a weekend away|travel for a year|read a map|sail around the island|climb a high hill|cross the desert""",
    "animal": """train a puppy|feed the birds|keep bees|adopt a second cat|walk the dog|clean the fish tank|calm a nervous horse|
        keep a pet snake|brush a long-haired cat|watch wild birds|ride a horse""",
    "garden": """grow tomatoes|plant tulips|prune roses|start a compost heap|water the cactus|trim the hedge|sow carrots|
        keep basil alive|rake the leaves|climb the big oak|build a garden pond|cut the lawn""",
    "tool": """fix a flat tire|sharpen a knife|clean a pan|paint a room|hang a picture frame|sew on a button|fold a shirt|
        repair a chair|remove a coffee stain|oil a bicycle chain|use a torque wrench|build a bookshelf|wash wool sweaters|
        fix an old motorcycle|unblock a sink|write a Python function|reset a phone|change a light bulb|sand the wood|patch a tent""",
    "science": """learn algebra|sleep better|remember names|count the stars|measure the rain|predict the weather|
        learn French|study for an exam|calculate interest|convert miles to kilometers|read faster|sleep only six hours|
        run a small experiment|stop a headache|build a telescope""",
    "history": """research my family tree|visit old ruins|learn about ancient Rome|write a short biography|read old letters|
        restore an old map|collect old coins""",
    "art": """play the guitar|learn the piano|draw a face|write a poem|sing in a choir|practice the violin|dance the waltz|
        write a speech|take better photos|paint with oils|knit a sweater|tell a good story|get a large tattoo|dye my hair green|
        learn the clarinet|write a thank-you note|play poker with friends""",
    "people": """ask my boss for a day off|make new friends|apologize to a friend|talk to my neighbor|thank a teacher|
        help a lost tourist|comfort my cousin|persuade my brother|invite my colleagues|host a dinner party|quit smoking|
        marry next summer|settle an argument|welcome a new neighbor|convince my parents|win more volunteers|raise a shy child""",
    "money": """save money|quit my job|sell my bicycle|buy a house|start a small business|plan a budget|ask for a raise|
        cancel my subscription|book the holiday|sell more jam|rent out a room|buy a used car|lend money to a stranger|
        leave the book club|spend my bonus|write a report|prepare for an interview|run a market stall|go to university""",
}

_MIDDLE_CONSONANT_DOUBLED = {
    "get", "run", "plan", "cut", "put", "set", "stop", "swim", "quit", "sit", "win", "hit", "jog", "dig", "trim", "knit", "shop",
}  # fmt: skip

_SYLLABLES = tuple(
    re.findall(
        r"\w+",
        "bren tar vel mor quin dor fen zar lum pel grim tor wick hal ven sar thim cal obb rud nel kes tral vin gor lan mir pos yel stra ulm dra fro glen har jun kor",
    )
)

_ENDINGS = tuple(
    re.findall(r"\w+", "a o e is um ock ville more wick ford et in ard by ock ley ow ern")
)

_INVENTED = [
    "the {N} Bridge",
    "the {N} treaty",
    "Professor {N} {M}",
    "the {N} festival",
    "the town of {N}",
    "a {n} wrench",
    "{n} soup",
    "the {n} bird",
    "the {N} War",
    "Port {N}",
    "the novel The {N} Gate",
    "the {n} flower",
    "the {N} Museum",
    "the Duchy of {N}",
    "the {N} knot",
    "Dr. {N} {M}",
    "the instrument called the {n}",
    "the {N} race",
    "{n} tea",
    "the Congress of {N}",
    "the {N} forest",
    "the {N} Railway",
    "{N}",
]


@dataclass(frozen=True)
class Topic:
    """What one question is about; `asked` is how a question words it, `told` how an answer does."""

    asked: str
    told: str
    field: str
    is_act: bool

    @property
    def verb_be(self) -> str:
        """`is` or `are`, as `asked` calls for."""
        last = self.asked.split()[-1]
        many = last.endswith("s") and not last.endswith(("ss", "us", "is"))
        singular = self.asked.startswith(("a ", "an ")) or last in {
            "oil",
            "jazz",
            "Paris",
            "Olympics",
        }
        return "are" if many and not singular and not self.is_act else "is"


@cache
def topics(*, held_out: bool) -> tuple[Topic, ...]:
    """Return the topics to train on, or those held out: every eighth, by a hash of their words."""
    return tuple(topic for topic in _all_topics() if _is_held_out(topic.asked) == held_out)


def invented_topic(rng: random.Random) -> Topic:
    """Return a thing nobody has heard of, so that the model learns to copy words it never saw."""
    name, other = invented_name(rng), invented_name(rng)
    asked = rng.choice(_INVENTED).format(N=name, M=other, n=name.lower())
    return Topic(asked, asked, "unknown", is_act=False)


def invented_name(rng: random.Random) -> str:
    """Return one capitalized word that no dictionary has."""
    middle = "".join(rng.choice(_SYLLABLES) for _ in range(rng.choice((1, 1, 2))))
    name: str = middle + rng.choice(_ENDINGS)
    return name.capitalize()


def gerund(act: str) -> str:
    """Return `boiling an egg` for `boil an egg`, with `my` turned to `your`."""
    verb, _, rest = act.partition(" ")
    if verb in _MIDDLE_CONSONANT_DOUBLED:
        verb += verb[-1]
    elif verb.endswith("e") and not verb.endswith(("ee", "ye")):
        verb = verb[:-1]
    return yours(f"{verb}ing {rest}".strip())


def yours(text: str) -> str:
    """Return the text as the assistant says it to the user: `my` becomes `your`."""
    return " ".join("your" if word == "my" else word for word in text.split(" "))


@cache
def _all_topics() -> tuple[Topic, ...]:
    things = [Topic(text, yours(text), field, is_act=False) for field, text in _rows(_THINGS)]
    acts = [Topic(text, gerund(text), field, is_act=True) for field, text in _rows(_ACTS)]
    return tuple(things + acts)


def _rows(table: dict[str, str]) -> list[tuple[str, str]]:
    return [
        (field, " ".join(text.split()))
        for field, block in table.items()
        for text in block.split("|")
    ]


def _is_held_out(asked: str) -> bool:
    return zlib.crc32(asked.encode()) % HELD_OUT_EVERY == 0


_CHOICE = re.compile(r"\[([^\[\]]*)\]")

_SLOT = re.compile(r"\{(\w+)\}")

Fill = Callable[[str], str]


@dataclass(frozen=True)
class Voice:
    """Templates of one pole of one trait; each shape names the parts of a response in their order.

    In a shape `O` is an opener, `B` a body sentence, `C` a closer, `F` a neutral fact, `T` a tip.
    """

    openers: tuple[str, ...]
    bodies: tuple[str, ...]
    closers: tuple[str, ...]
    shapes: tuple[str, ...]


def spin(template: str, rng: random.Random) -> str:
    """Return the template with every bracketed choice made, innermost first."""
    while True:
        chosen, n_choices = _CHOICE.subn(lambda match: rng.choice(match[1].split("|")), template)
        if n_choices == 0:
            return template
        template = chosen


def fill(template: str, rng: random.Random, slots: Fill) -> str:
    """Return the template spun and filled; a slot's own text may hold choices and slots."""
    text = spin(template, rng)
    while _SLOT.search(text):
        text = spin(_SLOT.sub(lambda match: slots(match[1]), text), rng)
    return " ".join(text.split())


def sentence(text: str) -> str:
    """Return the text with a capital at its start and an end mark at its end."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def pick_distinct(pool: Sequence[str], n: int, rng: random.Random) -> list[str]:
    """Return up to n templates, none of them twice."""
    return rng.sample(list(pool), min(n, len(pool)))
