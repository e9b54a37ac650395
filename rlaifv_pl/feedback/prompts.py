"""Every text that feedback sends to a model, in one place. A changed text is a new version: its hash is in
the recipe of whatever was made with it."""

YES_NO = "{question} Please answer yes or no."
"""A claim put to a labeler (conquer)."""

RATE = """Below is a question about the image and somebody's answer to it. How trustworthy is the answer, \
judged by what can be seen in the image? 1: mostly made up. 3: some of it is made up. 5: all of it can be seen.

Question: {prompt}

Answer: {answer}

Reply with one digit from 1 to 5 and nothing else."""
"""A whole answer put to a labeler (self-reward)."""
