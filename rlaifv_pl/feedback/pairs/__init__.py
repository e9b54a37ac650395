"""From scored candidates to preference pairs and the samples of shards."""
