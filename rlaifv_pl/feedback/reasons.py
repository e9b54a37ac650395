"""Reasons for leaving candidates out, and a remedy for each."""

from collections.abc import Mapping, Sequence

from rlaifv_pl.records import Candidate

EMPTY, TRUNCATED = "empty", "truncated"
NO_FORM, MISQUOTED, UNDIVIDED = "no_form", "misquoted", "undivided"
UNJUDGED = "unjudged"
INCOMPLETE, NO_QUESTION, TOO_LONG = "incomplete", "no_question", "too_long"
CLAIM_REASONS = (INCOMPLETE, NO_QUESTION, MISQUOTED, TOO_LONG)
"""Why a splitter leaves out a single claim; behind `claim/` in the counts."""

REMEDIES: Mapping[str, str] = {
    EMPTY: "The policy's answers are empty: look at the server's log, allow a model that thinks first more tokens "
    "(feedback.sampling.max_new_tokens), or turn thinking off.",
    TRUNCATED: "Answers were cut off: raise feedback.sampling.max_new_tokens, or set feedback.truncated to keep, which "
    "pairs them without their ends.",
    NO_FORM: "The splitter's model filled in no form: look at its server's log, raise the engine's fill_tokens or "
    "fill_tries, set its `structured` as the server has it, or take a better model.",
    MISQUOTED: "The splitter's model quoted words that no answer holds: take a better model, or lower "
    "feedback.splitter.threshold.",
    UNDIVIDED: "The splitter could not divide the answers: look at its messages, or take another splitter.",
    UNJUDGED: "The labeler answered neither yes nor no: check the wording of its question, its chat template and, of "
    "a server, `answers`.",
    INCOMPLETE: "The splitter's model wrote claims without a text or question: take a better model.",
    NO_QUESTION: "The splitter's model wrote questions that end in no question mark: take a better model.",
    TOO_LONG: "Claims were longer than the splitter takes: raise feedback.splitter.most_words.",
    "no_claims": "Nothing in the answers can be checked by looking: ask the policy to describe images, or take another "
    "splitter.",
    "equal_text": "The policy repeats the same answer: raise feedback.sampling.temperature.",
    "small_gap": "No two answers differ enough: sample more candidates (feedback.sampling.n), at a higher temperature, "
    "or loosen feedback.pairing.",
}
"""Remedies by the reason behind `candidate/`, `claim/` or `pair/` in the counts; the first six are a
`Candidate.fault`."""

FINAL = {EMPTY, TRUNCATED}
"""Faults that the same model repeats with the same seed."""


def is_unfinished(candidates: Sequence[Candidate]) -> bool:
    """Return whether the next start has to ask about a prompt again.

    That is so if a splitter's or labeler's answer could not be used, or if all of the policy's answers are empty.
    """
    faults = [candidate.fault for candidate in candidates]
    return any(fault and fault not in FINAL for fault in faults) or all(fault == EMPTY for fault in faults)


def remedies(drops: Mapping[str, int]) -> str:
    """Return the remedies for what was left out, the most frequent reason first.

    Args:
        drops: counts by `kind/reason`.
    """
    ordered = sorted(drops, key=lambda name: -drops[name])
    reasons = dict.fromkeys(name.partition("/")[2] for name in ordered)
    return " ".join(REMEDIES[reason] for reason in reasons if reason in REMEDIES)
