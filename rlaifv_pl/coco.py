"""Words for the 80 object classes of COCO: which nouns of a description count as a mention of which class.

CHAIR (Rohrbach et al. 2018, "Object Hallucination in Image Captioning") is defined by such a vocabulary. What
counts follows the vocabulary that published figures rest on, whether or not one would choose it again (a
pitcher is a person, a container is a bowl), for figures of another one could not be compared.
"""

PLAIN = (
    "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant",
    "stop sign", "parking meter", "bench", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag",
    "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl",
    "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair",
    "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush", "person", "bird", "cat", "dog", "horse", "sheep", "cow",
)  # fmt: skip
"""The classes; each is a word of itself."""

_PEOPLE = {
    "age and sex": "adult baby boy child father female gentleman girl grandchild guy kid lady male man mother "
    "people sister teenager woman",
    "ways to move": "bicyclist biker camper driver passenger rider skater skateboarder skier snowboarder traveler "
    "walker",
    "work": "baker caller chef cop cowboy coworker doctor officer patient pitcher player policeman politician "
    "serviceman soldier solider student worker",
    "roles": "bride buyer drinker foreigner groom hunter offender shopper thief trespasser villager",
}  # "solider" is how captions often spell it.

_BIRDS = {
    "of water": "cormorant duck egret flamingo goose gosling gull heron kingfisher loon mallard osprey pelican puffin "
    "sandpiper seabird seagull shorebird swan waterbird waterfowl willet",
    "of prey": "buzzard condor falcon owl vulture",
    "of song": "blackbird bluebird bluejay chickadee cowbird crow finch hummingbird magpie oriole raven robin songbird "
    "sparrow warbler woodpecker",
    "others": "cockatiel cockatoo fowl lorikeet macaw ostrich parakeet parrot peacock peafowl pheasant pigeon quail "
    "rooster turkey",
}

_DOGS = {
    "any": "canine doggie doggy hound mutt pup puppy",
    "breeds": "beagle brindle bulldog chihuahua cocker collie corgi dachshund doberman greyhound husky labrador "
    "pitbull poodle pug retriever rottweiler schnauzer sheepdog spaniel terrier weimaraner whippet",
}

_BOATS = {
    "sails and paddles": "canoe catamaran dinghy kayak paddleboat rowboat sailboard sailboat schooner skiff yacht",
    "engines": "ferry ferryboat motorboat powerboat riverboat speedboat steamboat steamship tugboat",
    "others": "barge battleship freighter houseboat lifeboat liner pontoon ship trawler vessel watercraft",
}


def _all(groups: dict[str, str]) -> str:
    return " ".join(groups.values())


OTHERS = {
    "person": _all(_PEOPLE),
    "bird": _all(_BIRDS),
    "dog": _all(_DOGS),
    "boat": _all(_BOATS),
    "cat": "feline kitten tabby",
    "horse": "bronc bronco clydesdale colt equine foal mare mustang palomino pony racehorse stallion",
    "sheep": "ewe goat lamb ram",
    "cow": "bison buffalo bull calf cattle heifer holstein ox oxen zebu",
    "bear": "panda",
    "bicycle": "bike minibike trike unicycle",
    "car": "automobile cab coupe hatchback jeep limo minivan sedan suv taxi taxicab van",
    "motorcycle": "moped motorbike scooter",
    "airplane": "airbus aircraft biplane jet jetliner monoplane plane seaplane",
    "bus": "minibus trolley",
    "train": "caboose locomotive tramway",
    "truck": "firetruck hauler lorry pickup",
    "traffic light": "stoplight streetlight",
    "fire hydrant": "hydrant",
    "bench": "pew",
    "backpack": "knapsack",
    "handbag": "briefcase purse wallet",
    "tie": "bow",
    "suitcase": "luggage",
    "skis": "ski",
    "sports ball": "ball",
    "surfboard": "longboard shortboard skimboard wakeboard",
    "tennis racket": "racket",
    "knife": "knive pocketknife",
    "bowl": "container",
    "sandwich": "burger cheeseburger hamburger sub",
    "donut": "bagel doughnut",
    "cake": "cheesecake coffeecake cupcake pancake shortcake",
    "chair": "seat stool",
    "couch": "chesterfield futon loveseat recliner settee sofa",
    "potted plant": "houseplant",
    "dining table": "desk table",
    "toilet": "commode lavatory potty urinal",
    "tv": "monitor televison television",
    "laptop": "computer lenovo macbook netbook notebook",
    "cell phone": "cellphone phon phone smartphone telephone",
    "oven": "stove stovetop",
    "refrigerator": "freezer fridge",
    "teddy bear": "teddybear",
    "hair drier": "hairdryer",
}
"""Single words for a class, beside its own name."""

LOST = ("cheesecake", "motor bike")
"""What the first list has with a blank in front, so that scorers which do not strip it never find it (variant A)."""

REFINED = {"person": "brother pedestrian"}
"""Words that Object HalBench adds (RLHF-V, Yu et al. 2024)."""

PHRASES = {
    "motorcycle": ("motor bike", "motor cycle"),
    "airplane": ("air plane",),
    "traffic light": ("street light", "traffic signal", "stop light"),
    "suitcase": ("suit case",),
    "cell phone": ("mobile phone",),
    "laptop": ("laptop computer",),
    "tie": ("bow tie",),
    "toilet": ("toilet seat",),
}
"""Two words for a class, beside its own name."""

NO_OBJECTS = ("home plate", "train track", "baby animal", "baby cub", "adult animal", "adult cub")
"""Two words of which neither is a mention."""

ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
"""Behind `baby` or `adult` they are one mention, and no person."""

CARRIERS = ("jet", "train")
"""Behind `passenger` they are one mention, and no person."""
