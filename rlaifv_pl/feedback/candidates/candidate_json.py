"""Candidates as JSON: in the parts between stages, and as the evidence of a finished pair."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rlaifv_pl.records import Candidate, Claim, Verdict


def encode_candidates(candidates: Iterable[Candidate]) -> list[dict[str, Any]]:
    """What `decode_candidates` reads."""
    return [asdict(candidate) for candidate in candidates]


def decode_candidates(rows: Iterable[Mapping[str, Any]]) -> list[Candidate]:
    """The candidates that `encode_candidates` wrote."""
    return [
        Candidate(
            **{
                **row,
                "claims": tuple(map(_claim, row["claims"])),
                "dropped_claims": tuple(row.get("dropped_claims", ())),
                "verdicts": tuple(Verdict(**verdict) for verdict in row["verdicts"]),
            }
        )
        for row in rows
    ]


def spans_of(claim: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """Where a claim stands, of a row of this version (`spans`) or an earlier one (`start`, `end`); empty if unknown."""
    found = claim.get("spans")
    if found is None and {"start", "end"} <= claim.keys():
        found = [[claim["start"], claim["end"]]]
    return tuple((start, end) for start, end in found or ())


def _claim(row: Mapping[str, Any]) -> Claim:
    return Claim(text=row["text"], question=row["question"], spans=spans_of(row))


def evidence(candidate: Candidate) -> dict[str, Any]:
    """One side of a sample's evidence: why the candidate has its score."""
    claims = [
        {**asdict(claim), **asdict(verdict)}
        for claim, verdict in zip(candidate.claims, candidate.verdicts, strict=True)
    ]
    return {"score": candidate.score, "seed": candidate.seed, "claims": claims}
