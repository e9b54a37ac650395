"""Splitters and labelers as a user writes them, without annotations: whole, and lacking something."""

from rlaifv_pl.records import Claim, Verdict


class Words:
    def recipe(self):
        return {"splitter": "words"}

    def split(self, answered):
        return [
            [Claim(text=word, question=f"{word}?", spans=((0, 1),)) for word in one.text.split()]
            for one in answered
        ]

    def release(self):
        pass


class Sure:
    def recipe(self, policy):
        return {"labeler": "sure"}

    def verdicts(self, samples, questions, policy):
        return [Verdict(yes=float("ring" not in one), no=float("ring" in one)) for one in questions]

    def release(self):
        pass


class Nameless:
    """An engine without an identity."""

    def sample(self, samples, seeds, sampling):
        raise NotImplementedError

    def choose(self, requests, words):
        raise NotImplementedError

    def fill(self, requests, form):
        raise NotImplementedError

    def release(self):
        pass


class Named(Nameless):
    def __init__(self):
        self.identity = "named"


class Wrapper:
    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, name):
        return getattr(self.engine, name)


class NoVerdicts:
    recipe, release = Sure.recipe, Sure.release


class TooFew(Sure):
    def verdicts(self, samples):
        return []
