"""From a policy's own answers to preference pairs and corrections. Reading order: engine (what is asked of a model;
`engines/` has who answers), the five verbs generate, divide, conquer, combine, pair, then balance and gate;
settings (what a config says), check (what is refused before the first token), reasons (why candidates are left out),
split (candidates to claims), run (the verbs in a row, part by part: parts, rows, finish, and left_out, examples of
what was dropped), ray_actors (parts made on many machines), verbs (the command line). `correct/` writes dialogues
for nSFT, self_reward is the ablation without divide and conquer, prompts has every text that is sent to a model,
memory keeps answers that were paid for."""
