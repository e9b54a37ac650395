"""Align vision-language models so that they stop making things up.

    shards -> data -> objectives -> policy -> the next reference
      ^      samples   DPO|nSFT|SFT     |
      +--- feedback: generate, divide, conquer, combine, pair

Reading order, which is the way of the data: `records` (the nouns), `data` (shards and batches), `models`
(a VLM and its log-ps), `objectives` (what is minimised), `feedback` (answers into pairs), `metrics`
(completions into figures), `rounds` (one after the other), `run` (what a run leaves behind), `report` (a web page
of it), `export` (a model out, with a card), `preflight` (what a run will need), `cli` and `verbs` (command lines).
`world` is a miniature of it all that fits a laptop.

Shapes: B pairs or samples, T tokens, M targets, V vocabulary, D width, N candidates a prompt, K claims.
"""
