"""Benchmarks without a rule: a judge, which is a language model, reviews each response beside the ground truth. Reviews
are saved, and figures come from them by rule and bear the judge's name. Reading order: reviews (shared by all), mmhal
(MMHal-Bench), object_classes and objhal (Object HalBench), llava_bench (LLaVA-Bench), refomb (RefoMB)."""
