"""Labelers that judge claims, the gate they must pass, and scores from their verdicts."""
