"""Import: rows in the files of other projects become samples in shards.

In the order of the data, from `import_shards` (`importer`) to a written sample (`import_report`):

- `find_sources`, `sources`: paths, patterns, folders and downloaded repositories to sources
- `readers`, with `text_files`, `delimited` and `json_rows`: a source to rows of cells
- `rows`, `columns`: a row with its place, and its columns under the names that formats know (`column_names`)
- `formats`: the table of formats and the detection of a source's; their readers in `trainer_formats`,
  `dataset_formats` and `rlaifv_verdicts`
- `samples`: a row with its prompt and answers to a `Sample`, by way of `messages` and `images` (`image_columns`,
  `encoded_images`, `fetch_image`)
- `unread_columns`: columns that a format does not read, and misspelled ones
"""
