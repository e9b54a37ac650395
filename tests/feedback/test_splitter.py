"""The rules of divide: hand-made expectations, laws on any text, and laws on 8000 real descriptions."""

import gzip
import json
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest

from rlaifv_pl.feedback.claims.english.sentences import LONGEST_SENTENCE, sentences
from rlaifv_pl.feedback.claims.splitter import PromptedAnswer, RuleSplitter
from rlaifv_pl.records import Claim

DESCRIBE = "Describe the image."
CAPTIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "chair" / "responses"
QUESTION = re.compile(
    r"(?:(?:Is|Are|Was|Were|Has|Have|Had|Can|Could|Will|Would|Does|Do|Did|Should|Must) |Is it true that ).*\?",
    re.DOTALL,
)


def words_of(text: str) -> list[str]:
    return text.split()


def divide(text: str, prompt: str = DESCRIBE) -> list[Claim]:
    return RuleSplitter().split([PromptedAnswer(prompt, text)])[0]


DESCRIPTIONS = {
    "There is a fork, a knife and two glasses on the table.": [
        "There is a fork on the table.",
        "There is a knife on the table.",
        "There are two glasses on the table.",
    ],
    "There appears to be a dog.": ["There is a dog."],
    "The scene evokes a sense of calm. It is a beautiful day.": [],
    "A man rides a horse, showcasing his talent.": ["A man rides a horse."],
    "A plate is on the table, suggesting that the meal is ready.": ["A plate is on the table."],
    "A woman is standing near a bus, possibly waiting for a friend or a taxi.": [
        "A woman is standing near a bus."
    ],
    "A vase sits on the shelf, adding an elegant touch to the room.": ["A vase sits on the shelf."],
    "The image features a man standing on a dirt road, accompanied by a dog.": [
        "There is a man standing on a dirt road.",
        "The man is accompanied by a dog.",
    ],
    "A man is in the kitchen. He is holding a knife.": [
        "A man is in the kitchen.",
        "The man is holding a knife.",
    ],
    "Two dogs are running. They are brown.": ["Two dogs are running.", "The two dogs are brown."],
    "He is holding a knife.": ["He is holding a knife."],
    "The man is wearing a hat, a shirt, and pants, and he is holding a small suitcase.": [
        "The man is wearing a hat.",
        "The man is wearing a shirt.",
        "The man is wearing pants.",
        "The man is holding a small suitcase.",
    ],
    "There are two cars in the image, one is parked near a tree, and the other is located on the left.": [
        "There are two cars.",
        "One car is parked near a tree.",
        "The other car is located on the left.",
    ],
    "A few people are here, one standing near the bus, another person near a car, and a third person on a bench.": [
        "A few people are here.",
        "One person is standing near the bus.",
        "There is another person near a car.",
        "There is a third person on a bench.",
    ],
    "The vase is placed on a table, which is covered with a cloth.": [
        "The vase is placed on a table.",
        "The table is covered with a cloth.",
    ],
    "A cat is sleeping while a dog is eating.": ["A cat is sleeping.", "A dog is eating."],
    "In the background, there is a clock.": ["There is a clock in the background."],
    "There is a bottle on the left side of the desk and a cup near the window.": [
        "There is a bottle on the left side of the desk.",
        "There is a cup near the window.",
    ],
    "It is surrounded by several items, including a suitcase, as well as multiple bottles.": [
        "There is a suitcase.",
        "There are multiple bottles.",
    ],
    "A man and a woman are sitting on a bench.": [
        "A man is sitting on a bench.",
        "A woman is sitting on a bench.",
    ],
    "A black and white cat lies in a dry, arid landscape.": [
        "A black and white cat lies in a dry, arid landscape."
    ],
    "The cat is between the chair and the table.": ["The cat is between the chair and the table."],
    "There are no people in sight.": ["There are no people in sight."],
    "The man isn't wearing a hat.": ["The man isn't wearing a hat."],
    "Dr. Lee stands at 3.5 km from the house. A dog runs.": [
        "Dr. Lee stands at 3.5 km from the house.",
        "A dog runs.",
    ],
    'A sign reads "STOP, and go."': ['A sign reads "STOP, and go."'],
    "**Objects:**\n* a dog\n2) an old car\n- two cups": [
        "There is a dog.",
        "There is an old car.",
        "There are two cups.",
    ],
    "2 snowboarders sitting on a bench": ["There are 2 snowboarders sitting on a bench."],
    "A large, white bus is parked on the street, surrounded by trees.": [
        "A large, white bus is parked on the street.",
        "The large, white bus is surrounded by trees.",
    ],
    "A dog runs. A dog runs.": ["A dog runs."],
}


REPORTED = {
    "A dog swims in calm water.": ["Does a dog swim in calm water?"],
    "Two people are engaging in a tennis match.": ["Are two people engaging in a tennis match?"],
    "A relaxed cat lies on a couch.": ["Does a cat lie on a couch?"],
    "The elephant has a long trunk that it is using to touch a branch.": [
        "Does the elephant have a long trunk?",
        "Is the elephant using the long trunk to touch a branch?",
    ],
    "A man in the center, who is holding a large surfboard, smiles at the camera.": [
        "Is there a man in the center?",
        "Is the man holding a large surfboard?",
        "Does the man smile at the camera?",
    ],
    "The room has a sink, while a microwave and an oven are located on the left side.": [
        "Does the room have a sink?",
        "Is a microwave located on the left side?",
        "Is an oven located on the left side?",
    ],
    "There are tall buildings on either side and cars driving down the road.": [
        "Are there tall buildings on either side?",
        "Are there cars driving down the road?",
    ],
    "There is a sandwich on the plate and another, smaller sandwich on the table.": [
        "Is there a sandwich on the plate?",
        "Is there another, smaller sandwich on the table?",
    ],
    "The vase holds flowers of various shapes and sizes.": [
        "Does the vase hold flowers of various shapes and sizes?"
    ],
    "The dish is a mixture of chicken and broccoli.": ["Is the dish a mixture of chicken and broccoli?"],
    "Two cars are parked in front and two more cars are further back.": [
        "Are two cars parked in front?",
        "Are two more cars further back?",
    ],
    "There are two sinks, each accompanied by a large mirror.": [
        "Are there two sinks?",
        "Is each sink accompanied by a large mirror?",
    ],
    "There are two sinks, each with a large mirror.": [
        "Are there two sinks?",
        "Does each sink have a large mirror?",
    ],
    "Several cups are scattered across the counter, as well as a knife.": [
        "Are several cups scattered across the counter?",
        "Is there a knife?",
    ],
    "Bald man in sunglasses.": ["Is there a bald man in sunglasses?"],
    "Snow on the ground.": ["Is there snow on the ground?"],
    "A dog leaps over a fence.": ["Does a dog leap over a fence?"],
    "Three dogs leap over a fence.": ["Do three dogs leap over a fence?"],
    "A man, a woman and a child stand in front of a car.": [
        "Is it true that a man, a woman and a child stand in front of a car?"
    ],
    "The brown and white dog is standing up.": ["Is the brown and white dog standing up?"],
    "The brown dog and the cat are standing up.": [
        "Is the brown dog standing up?",
        "Is the cat standing up?",
    ],
    "A group of people fly kites on the beach.": ["Do a group of people fly kites on the beach?"],
    "The boy has a ball. It is red.": ["Does the boy have a ball?", "Is the ball red?"],
    "A man and his dog are running.": ["Is a man running?", "Is the man's dog running?"],
    "A woman stands in the rain. Her umbrella is red.": [
        "Does a woman stand in the rain?",
        "Is the woman's umbrella red?",
    ],
    "The water is calm. The scene is calm. The sky looks beautiful.": ["Is the water calm?"],
    "A woman touches a horse. The flowers add a touch of color.": ["Does a woman touch a horse?"],
    "The room is cozy and inviting.": [],
    "Another person can be seen, partially hidden behind the girl.": [
        "Can another person be seen?",
        "Is the person partially hidden behind the girl?",
    ],
    "A plate is on the table, suggesting a meal, while enjoying the view.": ["Is a plate on the table?"],
    "This is a black and white photo of a bathroom.": ["Is there a bathroom?"],
    "There is what appears to be a dog.": ["Is there a dog?"],
    "Two kids sit on a couch, one holding a carrot.": [
        "Do two kids sit on a couch?",
        "Is one kid holding a carrot?",
    ],
    "There are two cups, one on the left and the other one located on the right.": [
        "Are there two cups?",
        "Is one cup on the left?",
        "Is the other cup located on the right?",
    ],
}
"""What the rules once lost, broke or asked in no English."""


@pytest.mark.parametrize("text", REPORTED)
def test_each_thing_that_can_be_checked_is_asked_in_one_question(text):
    assert [claim.question for claim in divide(text)] == REPORTED[text]


@pytest.mark.parametrize("text", DESCRIPTIONS, ids=range(len(DESCRIPTIONS)))
def test_claims_of_a_description(text):
    assert [claim.text for claim in divide(text)] == DESCRIPTIONS[text]


@pytest.mark.parametrize(
    "text, question",
    [
        ("There is a dog on the grass.", "Is there a dog on the grass?"),
        ("There are two dogs.", "Are there two dogs?"),
        ("The man rides a horse.", "Does the man ride a horse?"),
        ("Two people sit on a bench.", "Do two people sit on a bench?"),
        ("The room has a window.", "Does the room have a window?"),
        ("A clock can be seen on the wall.", "Can a clock be seen on the wall?"),
        ("There are no people in sight.", "Is it true that there are no people in sight?"),
        ("A man wearing a hat is walking.", "Is it true that a man wearing a hat is walking?"),
        ("The man isn't wearing a hat.", "Is it true that the man isn't wearing a hat?"),
        ("The image shows the inside of a bus.", "Does the image show the inside of a bus?"),
    ],
)
def test_the_question_is_one_that_yes_confirms(text, question):
    assert [claim.question for claim in divide(text)] == [question]


@pytest.mark.parametrize(
    "prompt, text, claim, question",
    [
        (
            "Is there a dog?",
            "yes",
            'The answer to the question "Is there a dog?" is "yes".',
            "Is there a dog?",
        ),
        (
            "Is there a dog? Please answer yes or no.",
            "No, there is not.",
            'The answer to the question "Is there a dog?" is "no".',
            'Is "no" the right answer to the question "Is there a dog?"?',
        ),
        (
            "How many dogs are there?",
            "two",
            'The answer to the question "How many dogs are there?" is "two".',
            'Is "two" the right answer to the question "How many dogs are there?"?',
        ),
        ("What is in the picture?", "A red bus.", "There is a red bus.", "Is there a red bus?"),
        (DESCRIBE, "A red bus.", "There is a red bus.", "Is there a red bus?"),
        (
            "Is the dog brown?",
            "Yes, the dog is brown.",
            "The dog is brown.",
            "Is the dog brown?",
        ),
    ],
)
def test_a_short_answer_is_read_in_the_light_of_its_question(prompt, text, claim, question):
    assert [(one.text, one.question) for one in divide(text, prompt)] == [(claim, question)]


def test_marks_of_lists_and_headings_cost_no_letter():
    text = "### Facts:\n- A dog runs.\n- A dog runs.\n1. numbered\nplain line\n   \n\n-nospace"
    assert [text[start:end] for start, end in sentences(text)] == [
        "Facts:", "A dog runs.", "A dog runs.", "numbered", "plain line", "-nospace",
    ]  # fmt: skip
    claims = [claim.text for claim in divide(text)]
    assert claims.count("A dog runs.") == 1
    assert [claim for claim in claims if "plain line" in claim and "nospace" not in claim]
    assert any("nospace" in claim for claim in claims)


MARKED = {
    "A man waits. He is holding a bag and an umbrella.": [["A man waits"], ["a bag"], ["an umbrella"]],
    "There is a dog, a cat and a bird.": [["a dog"], ["a cat"], ["a bird"]],
    "There is a fork and a knife on the table.": [["a fork"], ["a knife"]],
    "A man is riding a horse and wearing a hat.": [["A man is riding a horse"], ["wearing a hat"]],
    "The woman is wearing a red hat, a shirt, and boots, and she is smiling.": [
        ["a red hat"], ["a shirt"], ["boots"], ["she is smiling"],
    ],
    "A black cat and a white dog are lying on a sofa.": [["A black cat"], ["a white dog"]],
    "The image features a man on a road, accompanied by a dog.": [["a man on a road"], ["accompanied by a dog"]],
    "In the background, there is a clock.": [["In the background", "a clock"]],
    "A man, possibly a chef, is cooking.": [["A man"], ["is cooking"]],
    "A vase, which is blue, sits on a shelf.": [["A vase"], ["is blue"], ["sits on a shelf"]],
    "There is also a beautiful, tall tree near the house.": [["a beautiful, tall tree near the house"]],
    "\U0001f600 A man happily rides a big horse.": [["A man happily rides a big horse"]],
}  # fmt: skip


@pytest.mark.parametrize("text", MARKED)
def test_a_claim_marks_its_own_words_alone(text):
    assert [[text[start:end] for start, end in claim.spans] for claim in divide(text)] == MARKED[text]


@pytest.mark.parametrize("text", ["", " \n\t ", "...", "\u4e00\u4e8c\u4e09", "\x00", "?", "###", "- "])
def test_texts_without_words_are_no_fault(text):
    assert lawful(text, divide(text))


def lawful(text: str, claims: list[Claim]) -> bool:
    return len({claim.text.lower() for claim in claims}) == len(claims) and all(
        claim.spans
        and claim.spans[0][0] >= 0
        and all(start < end <= len(text) for start, end in claim.spans)
        and all(first[1] < second[0] for first, second in pairwise(claim.spans))
        and claim.text.strip(" .")
        and "\n" not in claim.text
        and QUESTION.fullmatch(claim.question)
        for claim in claims
    )


WORDS = [
    *words_of(
        "a the and or , . ? : ( ) dog dogs he it they is are isn't with which while one another there in of including "
        "such as possibly image shows appears to be standing parked not both each 2 where can seen as well before "
        "others some two _ \" 's - * #"
    ),
    *("\n", "\t", "\x00", "\u00e9", "\U0001f44d", "\u4e00", "\u2019", "\u201c", "\u201d"),
]


def test_any_text_keeps_the_laws():
    draw = random.Random(0)
    for number in range(4000):
        text = (" " if number % 2 else "").join(draw.choices(WORDS, k=draw.randint(0, 40)))
        prompt = draw.choice(["", DESCRIBE, "Is there a dog?", "How many?"])
        claims = divide(text, prompt)
        assert lawful(text, claims), (prompt, text, claims)
        assert claims == divide(text, prompt)


@pytest.mark.parametrize(
    "unit",
    ["a ", ",", "a dog and ", '"', "\n- ", "a. ", "(", "in the ", "x", "?", "# ", "a'", " ", "which ", "A "],
)
def test_200_kb_of_anything_come_to_an_end(unit):
    text = unit * (200_000 // len(unit))
    assert lawful(text, divide(text, "Is it?"))
    assert divide("yes", text) is not None
    assert all(end - start <= LONGEST_SENTENCE for start, end in sentences(text))


def test_the_recipe_is_json_and_tells_options_apart():
    first, second = RuleSplitter().recipe(), RuleSplitter(most_words=12).recipe()
    assert json.loads(json.dumps(first)) == first != second


def test_claims_longer_than_the_limit_are_left_out_and_counted():
    (claims,) = RuleSplitter(most_words=4).split(
        [PromptedAnswer(DESCRIBE, "A dog is on the mat. A cat sits.")]
    )
    assert [claim.text for claim in claims] == ["A cat sits."] and claims.dropped == ("too_long",)
    assert divide("A dog is on the mat.").dropped == ()


OBJECTS = words_of(
    "person man woman people boy girl child dog cat horse sheep cow elephant bear zebra giraffe bird car bus train "
    "truck boat bicycle motorcycle airplane bench chair couch table bed toilet sink tv laptop phone book clock vase "
    "umbrella handbag backpack suitcase bottle cup bowl knife fork pizza cake sandwich banana apple orange kite "
    "skateboard surfboard"
)
OBJECT = re.compile(rf"\b({'|'.join(OBJECTS)})(?:e?s)?\b")
OPINION = re.compile(
    r"\b(?:atmosphere|ambiance|mood|evokes?|beautiful|lovely|charming|elegant|delicious|cozy|serene|peaceful|vibrant|"
    r"suggest(?:s|ing)?|indicat(?:es|ing)|possibly|perhaps|likely|might|sense|experience|skillfully|inviting)\b"
)
EXPECTED = {
    "Instruction1_instructblip": (1.0, 1.5, 0.99),
    "Instruction1_llava": (7.5, 10.0, 0.975),
    "Instruction2_llava": (5.0, 7.0, 0.96),
    "Instruction2_minigpt-4": (2.2, 3.2, 0.985),
}
"""Claims of a caption on average, at least and at most, and the share of mentioned objects in the claims.
Measured: 1.17, 8.75, 5.92 and 2.65 claims; 1.000, 0.983, 0.969 and 0.993."""


@pytest.mark.skipif(not CAPTIONS.is_dir(), reason=f"no captions of real models in {CAPTIONS}")
@pytest.mark.parametrize("name", EXPECTED)
def test_claims_of_real_captions(name):
    least, most, covered = EXPECTED[name]
    with gzip.open(CAPTIONS / f"{name}.jsonl.gz", "rt") as lines:
        captions = [json.loads(line)["caption"] for line in lines]
    divided = RuleSplitter().split([PromptedAnswer(DESCRIBE, caption) for caption in captions])
    assert len(divided) == 2000
    assert not [text for text, claims in zip(captions, divided, strict=True) if not lawful(text, claims)]
    assert least < sum(map(len, divided)) / 2000 < most
    assert sum(not claims for claims in divided) < 20

    said = [" ".join(claim.text for claim in claims).lower() for claims in divided]
    pairs = [
        (set(OBJECT.findall(text.lower())), set(OBJECT.findall(claims)))
        for text, claims in zip(captions, said, strict=True)
    ]
    assert sum(len(all_ & kept) for all_, kept in pairs) / sum(len(all_) for all_, _ in pairs) >= covered
    texts = [claim.text.lower() for claims in divided for claim in claims]
    assert sum(bool(OPINION.search(text)) for text in texts) / len(texts) <= 0.005


SHORT = words_of(
    "a an the is are was were has have and on in with of that who which each it its he she they be to "
    "appear appears seem seems"
)


@pytest.mark.skipif(not CAPTIONS.is_dir(), reason=f"no captions of real models in {CAPTIONS}")
def test_what_is_marked_is_what_a_claim_says():
    """But for praise, pronouns and short words; and no two claims mark the same words, or hardly ever."""
    with gzip.open(CAPTIONS / "Instruction1_llava.jsonl.gz", "rt") as lines:
        captions = [json.loads(line)["caption"] for line in lines][:500]
    foreign = shared = claims = 0
    for caption in captions:
        places: list[tuple[int, int]] = []
        for claim in divide(caption):
            marked = " ".join(caption[start:end] for start, end in claim.spans).lower()
            said = set(re.findall(r"[\w-]+", claim.text.lower()))
            left = set(re.findall(r"[\w-]+", marked)) - said - set(SHORT)
            claims += 1
            foreign += len(left) > 1
            shared += any(
                start < last and end > first for first, last in places for start, end in claim.spans
            )
            places += claim.spans
    assert claims > 4000 and foreign / claims < 0.02 and shared / claims < 0.02, (foreign, shared, claims)
