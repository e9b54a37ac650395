"""CHAIR: objects of COCO that a description mentions and an image does not show. Reading order: rlaifv_pl.coco (the
vocabulary), forms (singular and plural, by variant), mentions (text to classes), ground_truth (from COCO's
annotations), benchmark (counts to figures)."""
