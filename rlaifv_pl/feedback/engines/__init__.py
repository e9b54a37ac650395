"""Models that feedback can ask, all by the protocol in `engine`.

- in this process: `in_memory` (`lazy`: loaded when first asked; `transformers_engine`: from disk), with
  `question_trees` and `shared_prefix` (an image is read once), `word_tokens`, `seeded_sampling`, `position_limit`
- `vllm_engine`: vLLM in this process (`isolated_env`: apart from a launcher's processes; `rendering`: its prompts)
- `openai_engine`: a chat completions server (`requests`, `responses`, `server`: retries; `response_cache`)
- `best_of`: the best of several answers by `implicit_reward`
"""
