"""All texts that feedback sends to a model. Recipes hold their hashes, so that a changed text is a new version."""

YES_NO = "{question} Please answer yes or no."
"""Question about one claim, for a labeler."""

RATE = """Below is a question about the image and somebody's answer to it. How trustworthy is the answer, \
judged by what can be seen in the image? 1: mostly made up. 3: some of it is made up. 5: all of it can be seen.

Question: {prompt}

Answer: {answer}

Reply with one digit from 1 to 5 and nothing else."""
"""Question about a whole answer, for a labeler (self-reward)."""

FILL = """{text}

Reply with one JSON object that follows this schema, and with nothing else:
{schema}"""
"""Request for a form, for a model that no engine constrains to a schema."""

_PAIR = """You help to prepare questions and answers about a picture that you do not see.

What was asked about the picture:
{prompt}

Description A, which is right and says all that you may rely on:
{chosen}

Description B, which may be wrong:
{rejected}
"""

_FIND = """List what description B says wrongly about the picture, judged by description A alone. For each of them \
give the words of B that are wrong, copied letter by letter (for something that B leaves unsaid, the words of A that \
say it), the id of the kind of fault, and what A says about it. What A does not speak of is no fault, unless it \
cannot be true if A is. Differences of style or length are no faults. If B has none, give an empty list. The kinds \
of faults are:

{codebook}
"""

_WRITE = """Write up to {turns} turns of a conversation about the picture: short questions that someone who looks at \
it could ask, with their right answers. Each is about one of the faults, so that whoever gets the answers right does \
not fall for it, and carries the ids of the kinds of faults that it is about; a turn about something else that A \
tells carries none. Every answer follows from A. Ask about things, not about texts: neither a question nor an answer \
mentions a description, a fault, or that anything was said before. About as many answers begin with Yes as with No; \
one or two questions are open and have a short answer. Do not repeat what was asked at first.
"""

DIAGNOSE = f"{_PAIR}\n{_FIND}"
"""First of a corrector's two calls: errors of the rejected answer, by the codebook."""

WRITE = f"{_PAIR}\nWhat B says wrongly or leaves unsaid:\n{{errors}}\n\n{_WRITE}"
"""Second of a corrector's two calls: turns about those errors."""

DIAGNOSE_AND_WRITE = f"{_PAIR}\nFirst: {_FIND}\nThen: {_WRITE}"
"""A corrector's two requests in one call."""

DIVIDE = """Somebody was asked about a picture and answered. Take the answer apart into claims that a person who \
looks at the picture can check one at a time. You do not see the picture: do not judge whether a claim is true.

For each claim write:
- quote: the words of the answer that make the claim, copied letter by letter.
- claim: one short sentence that is understood without the answer. Name things instead of saying it, they or \
another, say one thing only, and add nothing that the answer does not say.
- question: the claim as a question that is answered with yes if the claim is true and with no if it is not.

Several things in a list are several claims. Keep every not and no: that something is absent is a claim. Where the \
answer is a bare yes, no, number or name, the claim says what it means as an answer to the question. Leave out \
opinions, moods, guesses about reasons or intentions, and what cannot be seen. If nothing remains, give an empty list.

Question: {prompt}

Answer: {answer}"""
"""Request to divide an answer into claims, for a language model."""
