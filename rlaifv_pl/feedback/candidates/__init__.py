"""Answers sampled from a policy, and their JSON."""
