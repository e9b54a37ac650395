"""From shards to batches. The files in the order of the data:

    source rows -> importers/ -> Sample -> shard_writer -> shards/*.tar, manifest.json
                                                              |
              batch <- datamodule <- collate <- order <- shards (read at random)

- `schema`: what a shard holds: keys, members, what a sample must fulfil (with `fields` and `strict_json`,
  its JSON; `images`, opening files nobody vouches for; `faults`, what can be wrong and what to do about it)
- `manifest`: what a directory of shards holds and how it came about, written last (with `atomic`)
- `shard_writer`: samples to tars
- `remote`: directories of shards behind URLs to copies on this machine (with `transfer`, one file; `urls`, what is
  behind them)
- `shards`: tars to samples, at random (with `tar_index`)
- `importers`: rows in the formats of others, from TRL's to OpenAI's, to shards
- `sidecar`: what was computed of samples once, beside their shards (with `fill`, computing it; `survey`, how large
  they are and which belong together; `known`, log-ps under a cached reference; `features`, of a vision tower)
- `order`: the global order of an epoch, dealt out to the ranks by count or by tokens, restartable anywhere
- `collate`: samples to a batch (`loader`: in worker processes, with what is known of them, and step by step)
- `datamodule`: which shards, how many workers, where an interrupted epoch goes on (`attached`: that of a trainer)
- `verbs`: what `rlaifv shards import|verify|show` do (with `contact_sheet`)
"""
