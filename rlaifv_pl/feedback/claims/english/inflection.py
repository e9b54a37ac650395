"""Singular and plural of nouns, third person and base form of verbs."""

IRREGULAR_PLURALS = {
    "bookshelves": "bookshelf", "buffaloes": "buffalo", "buses": "bus", "calves": "calf", "cattle": "cow",
    "children": "child", "feet": "foot", "fishes": "fish", "flamingoes": "flamingo", "geese": "goose",
    "grandchildren": "grandchild", "knives": "knife", "leaves": "leaf", "lenses": "lens", "loaves": "loaf",
    "mice": "mouse", "others": "other", "oxen": "ox", "people": "person",
    "pocketknives": "pocketknife", "potatoes": "potato",
    "scarves": "scarf", "scissors": "pair of scissors", "sheep": "sheep", "shelves": "shelf", "skis": "ski",
    "teeth": "tooth", "tomatoes": "tomato",
    **{f"{who}men": f"{who}man" for who in ("", "wo", "gentle", "police", "service", "dober", "fisher", "snow")},
}  # fmt: skip
"""Plural to singular."""
_ENDING_IN_E = {
    *(
        "tie",
        "necktie",
        "bowtie",
        "lie",
        "die",
        "pie",
        "magpie",
        "cookie",
        "movie",
        "brownie",
        "hoodie",
        "zombie",
    ),
    *(
        "selfie",
        "collie",
        "birdie",
        "smoothie",
        "calorie",
        "veggie",
        "rookie",
        "genie",
        "prairie",
        "beanie",
        "doggie",
    ),
    *(
        "ache",
        "headache",
        "toothache",
        "mustache",
        "moustache",
        "quiche",
        "brioche",
        "cache",
        "niche",
        "avalanche",
    ),
    *("axe", "pickaxe"),
}
"""Words that lose no more than the s of an ending which otherwise stands for a y or has an e of its own."""


def plural(noun: str) -> str:
    """Return the regular plural of a noun, which is also the third person of a verb.

    >>> plural("boy"), plural("baby"), plural("couch")
    ('boys', 'babies', 'couches')
    """
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "sh", "ch", "x")) else "s")


def is_plural(noun: str) -> bool:
    """Whether a noun by itself looks like more than one thing."""
    return noun in IRREGULAR_PLURALS or (
        noun.endswith("s") and not noun.endswith(("ss", "us", "is", "'s", "selves")) and len(noun) > 3
    )


def singular(noun: str) -> str:
    """Return the singular of a noun that `is_plural`.

    >>> singular("people"), singular("benches"), singular("vases"), singular("puppies")
    ('person', 'bench', 'vase', 'puppy')
    """
    return IRREGULAR_PLURALS.get(noun) or without_ending(noun)


def without_ending(word: str) -> str:
    """Return a noun without its regular plural's ending, or a verb without that of the third person.

    >>> without_ending("neckties"), without_ending("mustaches"), without_ending("lies"), without_ending("flies")
    ('necktie', 'mustache', 'lie', 'fly')
    """
    if word[:-1] in _ENDING_IN_E:
        return word[:-1]
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "shes", "ches", "xes", "zzes")) else word[:-1]
