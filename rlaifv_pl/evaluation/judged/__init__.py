"""Benchmarks that have no rule: a judge, which is a language model, reads each response beside what is right. Judging
is a stage of its own over saved responses, whose reviews are saved in turn; figures come from the reviews by rule, and
bear the judge's name. Reading order: reviews (what all share), mmhal (MMHal-Bench), objects and objhal (Object
HalBench), llava_bench and llava_judge (LLaVA-Bench), refomb and refomb_judge (RefoMB), verb (`rlaifv judge`)."""
