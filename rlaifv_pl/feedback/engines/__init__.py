"""Who answers: models that feedback can ask, all by the `Engine` protocol.

`live` asks a model that is in memory (`loaded`: from when it is first asked), `transformers` loads one from disk,
`vllm` has vLLM run it (`launched` keeps its processes apart from a launcher's). `questions` reads an image once for
all that is asked about it, `prefix` once for all candidates; `words` knows how a tokenizer writes a one-word answer,
`draw` draws tokens by each row's own seed. `openai` asks a model behind servers: `calls` is what is sent, `replies`
what comes back and what is made of it, `server` what is tried again and what an error says. `best_of` asks another
engine several times and keeps the best answer by `reward`.
"""
