"""A run as one web page that needs no network. Reading order: run_files (the files of a run), curves (steps to series),
pairs (samples to rows of the page), dropped and left_out (what an import and feedback left out), held_out, thumbnails,
histograms (gaps and lengths), content (the page as JSON), page (all of it in one file, where nothing of it can run).
`page.html`, `page.css` and the scripts are its source."""
