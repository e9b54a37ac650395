"""Tests of what the package asks of model families."""
