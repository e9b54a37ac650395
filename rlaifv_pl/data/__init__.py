"""From shards to batches. The files in the order of the data:

    source rows -> importers/ -> Sample -> shard_writer -> shards/*.tar, manifest.json
                                                              |
              batch <- datamodule <- collate <- batching <- shards (random access)

- `schema`: the members of a sample in a shard, and what a sample must fulfil (`sample_json`, `strict_json`: its JSON;
  `sample_texts`: its texts; `images`, `rgb`, `file_kinds`: opening images nobody vouches for; `bad_samples`: faults)
- `manifest`: the content and origin of a directory of shards, written last (`atomic`, `atomic_directory`)
- `shard_writer`: samples to tars
- `shard_cache`: local copies of shards behind URLs (`download`: one file; `remote_directory`: the other side)
- `shards`: tars to samples, in any order (`tar_index`)
- `importers`: rows in the formats of other projects to shards
- `sidecar`: values computed once for the samples of a shard, in files beside it (`precompute`: the computation;
  `sample_lengths`: tokens; `reference_logps`: log-ps of a cached reference; `vision_features`: a frozen tower's output)
- `batching`: the global order of an epoch, cut into batches by count or by tokens; it can restart anywhere
- `collate`: samples to a batch (`loader`: in worker processes, a step ahead)
- `datamodule`: shards, workers, and the position in an interrupted epoch (`protocols`: what it and the module in
  training ask of each other; `lightning_utils`: access from a trainer)
- `contact_sheet`: samples as a picture
"""
