"""Tests of the command line beside training."""
