"""Public benchmarks: how much a model makes up, and how much it can do. From prompts to figures:

    benchmark files -> Benchmark.items -> any model -> responses (official format) -> TableMetric -> figures

Reading order: benchmark_files (rows of JSON, with errors that name them; spreadsheets), benchmark (the base class),
table_metric (the torchmetrics.Metric of all of them), yes_no (answers of yes and no), tokenization, then `chair/`,
`amber/`, pope (`pope_builder`), hallusion, mme, mmstar, vqa, and `judged/` (rated by a language model); responder (a
model answers the items; `rank_shares`: work shared by processes), benchmarks (all of them by name).
"""
