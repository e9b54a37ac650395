"""AMBER: descriptions of images and questions about them, measured by rules (Wang et al. 2023, "AMBER: An LLM-free
Multi-dimensional Benchmark for MLLMs Hallucination Evaluation"). Reading order: nouns (of a description), similarity
(of words), count (a description to counts), benchmark (files, and counts to figures)."""
