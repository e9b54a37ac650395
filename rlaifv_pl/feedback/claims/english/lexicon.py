"""Words that the rules of `divide` know: closed classes of English, and what descriptions of images add."""

from rlaifv_pl.feedback.claims.english.inflection import is_plural, plural, without_ending


def words_of(text: str) -> frozenset[str]:
    """The words of a list with blanks between them."""
    return frozenset(text.split())


ARTICLES = words_of("a an")
POSSESSIVES = words_of("my our your his her its their whose")
DEFINITE = POSSESSIVES | words_of("the this that these those each every both all")
SINGULAR = ARTICLES | words_of("one 1 another each every this that either neither")
NUMBERS = words_of("two three four five six seven eight nine ten eleven twelve dozen dozens")
PLURAL = NUMBERS | words_of(
    "several many various multiple few numerous these those both some most various more"
)
DETERMINERS = SINGULAR | PLURAL | DEFINITE | words_of("other no any additional two-story half")
QUANTITIES = {
    "a few", "a couple of", "a lot of", "lots of", "a number of", "a variety of", "at least", "plenty of",
    "a couple", "dozens of",
}  # fmt: skip
"""Read as one plural determiner."""
COMPOUND_PREPOSITIONS = {
    "next to", "in front of", "on top of", "close to", "closer to", "near to", "to the left of", "because of",
    "to the right of", "out of", "instead of", "such as", "as well as", "along with", "in addition to",
    "rather than", "full of", "as well", "each other", "one another", "in between", "most likely",
}  # fmt: skip

PREPOSITIONS = words_of(
    "in on at of with by near beside behind under over above below between among against from to into onto through "
    "around across along for inside outside within without during before after beneath underneath alongside atop "
    "towards toward off down up throughout beyond past via like amidst amid surrounding upon opposite despite as than"
)
ATTACHING = words_of("of with for like than without from")
"""Prepositions whose phrase belongs to the noun in front of it and to no other."""
PRONOUNS = {"he": "person", "she": "person", "it": "thing", "they": "many"}
OWNERS = {"his": "person", "her": "person", "its": "thing"}
ADDING = {"as well as", "along with", "in addition to"}
PLACES = words_of("there here it")
RELATIVES = words_of("which who that where whom")
SUBORDINATORS = words_of("while whereas although though because since but when so whilst yet")
CONNECTIVES = words_of(
    "additionally also moreover furthermore overall however meanwhile lastly finally secondly first firstly besides "
    "then therefore thus interestingly specifically notably altogether nonetheless nevertheless sure yes no well so "
    "certainly and but actually seemingly apparently clearly too likewise similarly unfortunately lastly"
)
"""Openers that say nothing about the image."""

AUXILIARIES = words_of("is are was were has have had can could will would may might must should does do did")
COPULAS = words_of("is are was were")
CONTRACTIONS = words_of(
    "isn't aren't wasn't weren't hasn't haven't doesn't don't didn't can't cannot couldn't won't"
)
NEGATIONS = words_of("no not never none nobody nothing neither nor without cannot") | CONTRACTIONS


VERBS = {
    base: plural(base)
    for base in words_of(
        "stand sit look walk ride hold wear play lie rest hang gather wait watch eat carry surround cover contain "
        "include feature show depict portray capture display appear seem run jump lean take use make give add "
        "create suggest convey provide occupy highlight reflect fill complement dominate demonstrate emphasize "
        "enhance span remain cast perform bring indicate attempt try lead catch engage pass navigate cross touch "
        "fly perch smile break point contribute continue embody evoke exude represent resemble offer prepare enjoy "
        "pose drive travel pull push serve read talk sleep graze hit throw kick face adorn decorate "
        "extend stretch flow lay focus consist belong come get keep work lend imply imitate stare gaze "
        "spread swim float surf compete connect say tell reveal allow help ensure illustrate showcase separate "
        "suit overlook observe drink cook grow drape know think see boast divide receive hint "
        "vary sway chat laugh spend invite reach climb glide wind feed balance"
    )
} | {"go": "goes"}
"""Base to third person singular."""
BASES = {form: base for base, form in VERBS.items()}
CLEAR_BASES = words_of("sit wear hold carry appear seem contain include surround occupy")
"""Base forms that are hardly ever nouns."""

PARTICIPLES = words_of(
    "seen worn held shown built made hung lit set spread taken parked driven drawn written stuck left caught bent "
    "sat stood being eaten ridden visible present ready cut hidden laid thrown broken torn woven frozen sewn blown "
    "bound dug fed flown grown mown shaken sliced slept spun strung struck sunk swept swung wound drunk"
)
NOT_PARTICIPLES = words_of(
    "red bed shed sled seed speed need feed reed weed hundred naked bunk-bed sacred breed tweed flatbed "
    "colored aged detailed well-maintained"
)
NOT_GERUNDS = words_of(
    "building clothing ceiling railing evening morning string king ring wing thing something nothing anything "
    "everything during awning crossing spring painting wedding swing icing frosting topping stuffing flooring "
    "sling dressing bedding wing earring dining living parking seating setting lighting outing string pudding "
    "roofing bowling siding sibling duckling scaffolding"
)

LINKING = words_of("appear appears seem seems looks look")
HEDGES = words_of(
    "possibly perhaps likely probably maybe presumably potentially might may could would presumedly unlikely "
    "unclear seemingly apparently either whether if"
) | {"most likely"}
"""What follows them is a guess."""
COMMENTS = words_of(
    "adding creating making giving providing showcasing indicating suggesting emphasizing highlighting contributing "
    "portraying enhancing ensuring allowing conveying demonstrating capturing inviting implying hinting evoking "
    "offering reflecting lending signifying making symbolizing showing enabling captivating resulting helping "
    "blending bringing illustrating expressing requiring encouraging complementing maintaining indicative"
)
"""Participles that open a remark on what was described."""
OPINIONS = words_of(
    "atmosphere ambiance ambience mood feeling feelings sense vibe vibes evoke evokes evoking suggest suggests "
    "suggesting implies imply implying indicates indicate indicating convey conveys conveying experience experiences "
    "adventure excitement charm beauty elegance essence emphasis emphasize emphasizes emphasizing emphasized "
    "highlight highlights highlighting showcase showcases showcasing contribute contributes contributing enhance "
    "enhances enhancing enhanced demonstrate demonstrates demonstrating skill skills talent talents ability abilities "
    "dedication passion determination enthusiasm confidence camaraderie bond memories nostalgia tranquility serenity "
    "joy happiness fun appeal aesthetic "
    "heartwarming mesmerizing symbolizes embodies exudes creates create creating possibility purpose "
    "hint hints hinting opportunity challenge challenges importance idea comfort warmth vibrancy reminder "
    "testament juxtaposition intrigue curiosity anticipation moment moments complement complements harmony lifestyle "
    "personality interest allure simplicity adds adding unforgettable emotion emotions spirit energy attention "
    "possible presumably probably "
    "likely possibly perhaps might may could"
)
"""No claim has any of these: what remains is a judgement or a guess, not something to look for."""
OPINION_NOUNS = words_of("touch feel help")
"""Opinions as nouns; as verbs they say what can be seen."""
EVALUATIONS = words_of(
    "beautiful lovely stunning elegant charming delicious impressive gorgeous delightful wonderful amazing "
    "picturesque breathtaking magnificent interesting unique adorable cute appetizing mouth-watering nice attractive "
    "majestic thrilling vibrant cozy lively serene peaceful tranquil inviting welcoming exciting scenic eye-catching "
    "perfect fantastic spectacular striking pleasing idyllic enchanting captivating fascinating iconic "
    "relaxed relaxing engaging pleasant enjoyable memorable"
)
"""Adjectives that a claim is better off without, and that make no claim by themselves."""
MOODS = words_of("calm quiet casual social fun formal happy friendly joyful festive romantic")
"""What is an opinion of a whole scene, and can be seen of a thing in it."""
SETTINGS = words_of(
    "scene setting environment surroundings place image picture photo photograph background day"
)
PRAISING = words_of(
    "beautifully perfectly skillfully elegantly happily neatly nicely wonderfully carefully gracefully proudly "
    "confidently also too overall as-well"
) | {"as well"}
"""Adverbs that a claim is better off without."""
ADJECTIVES = EVALUATIONS | words_of(
    "big small large tall short long little young old new modern vintage dry wet hot cold warm cool clear cloudy sunny "
    "snowy sandy grassy rocky dirty clean empty full busy open closed wide narrow thick thin dark light bright "
    "shiny colorful fluffy black white red green blue yellow orange brown gray grey pink purple golden silver blond "
    "blonde beige tan wooden metal metallic plastic round square rectangular oval flat deep high low lush bustling "
    "stylish simple plain fresh rustic huge giant tiny massive sharp soft smooth rough calm heavy sturdy fancy "
    "plush curly wavy straight double single arid barren hilly crowded spacious left right upper lower front quiet "
    "casual social fun healthy formal"
)
PERSONS = words_of(
    "man woman boy girl person child player surfer skier snowboarder skateboarder rider batter pitcher catcher lady "
    "guy kid baby officer player toddler individual cyclist biker chef driver umpire policeman gentleman adult"
)
PEOPLE = words_of("people men women children")
"""Plurals that stand before no other noun, but before its verb."""
TOGETHER = words_of("together both between other while different each")
"""Words of a predicate that holds of several things only taken together."""
VAGUE = words_of(
    "element elements casual social fun formal day scene view time place setting display sight arrangement area way "
    "manner"
)
"""Of these "there is one" says nothing."""
WHOLE = words_of("both each all")
"""Words that may stand in front of what all of the things just named do."""
MASS = words_of(
    "water grass snow sand ice rain traffic food fruit bread cheese rice meat broccoli lettuce chicken luggage "
    "furniture equipment clothing hair wood metal dirt mud smoke fire fog sunlight greenery vegetation foliage scenery "
    "wildlife coffee tea milk juice wine beer soup pasta spaghetti sauce butter sugar salt pepper toast beef pork ham "
    "bacon tennis baseball soccer jewelry paper plastic text writing graffiti space weather silverware "
    "produce corn squash music everyone someone something everything nothing nobody"
)
"""Nouns that take no article when there is some of it."""
SPREAD = words_of("scattered spread arranged dispersed")
"""What only several things can be."""


def base_of(verb: str) -> str:
    """Return the base form of a verb in the present.

    >>> base_of("leaps"), base_of("catches"), base_of("flies"), base_of("stand")
    ('leap', 'catch', 'fly', 'stand')
    """
    if verb in BASES or verb in VERBS or not is_plural(verb):
        return BASES.get(verb, verb)
    return without_ending(verb)
