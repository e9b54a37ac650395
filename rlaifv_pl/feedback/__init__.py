"""From a policy's own answers to preference pairs. Reading order: generate (candidates), conquer (what a
labeler answers), pair (which two teach something), run (all of it in a row)."""
