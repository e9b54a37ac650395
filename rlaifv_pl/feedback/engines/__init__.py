"""Who answers: models that feedback can ask, all by the `Engine` protocol.

`transformers` has a model in this process, with `words` (how its tokenizer writes a one-word answer) and
`draw` (tokens drawn by a row's own seed). `openai` has one behind a server: `calls` is what is sent,
`replies` what comes back and what is made of it, `server` what is tried again and what an error says.
"""
