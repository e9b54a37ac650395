"""How much a model makes up, and how much it can do, by the rules of public benchmarks. From prompts to figures:

    benchmark files -> Benchmark.items -> any model -> responses (official format) -> metric -> figures

Reading order: files (rows of JSON, with errors that name them; `tables`, of workbooks), benchmark (what each benchmark
offers), table (the torchmetrics.Metric that all share), yes_no (answers of yes and no), english (words), then the
benchmarks: `chair/` (objects that descriptions make up), `amber/` (descriptions and questions), pope (with
`pope_builder`, questions for any images with known objects), hallusion, mme, mmstar, vqa, and `judged/` (a language
model reads responses, as a stage before); sharing (long work in parts, with a bar), respond (a model answers the
items); verbs (the command line).
"""
