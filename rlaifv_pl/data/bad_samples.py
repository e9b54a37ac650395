"""What can be wrong with a shard or a sample: one name each, and what to do about it."""

from enum import StrEnum

from rlaifv_pl.errors import UserError


class Reason(StrEnum):
    """Why a sample is unfit. The name is counted in manifests, the remedy ends the error message."""

    remedy: str

    def __new__(cls, name: str, remedy: str) -> "Reason":
        """Make a member that equals its name and carries its remedy."""
        reason = str.__new__(cls, name)
        reason._value_ = name
        reason.remedy = remedy
        return reason

    BAD_KEY = "bad_key", "Use lower-case letters, digits, '_' and '-', at most 80 of them."
    DUPLICATE_KEY = "duplicate_key", "Give each sample of a directory a key of its own."

    TRUNCATED_SHARD = "truncated_shard", "Copy the shard again, or write it again from its source."
    CHANGED_SHARD = (
        "changed_shard",
        "Restore the file that the manifest describes, or write the shards again.",
    )
    CORRUPT_SHARD = "corrupt_shard", "Copy the shard again, or write it again from its source."
    FOREIGN_MEMBER = (
        "foreign_member",
        "Remove it, or write the shards again: shards/README.md lists the members.",
    )
    BAD_LINK = (
        "bad_link",
        "Link images only to an earlier image of the same tar, or write the shards without `link_duplicate_images`.",
    )
    DUPLICATE_MEMBER = "duplicate_member", "Keep one member of each name and write the shard again."

    MISSING_JSON = "missing_json", "Write `<key>.json` beside the images of the sample."
    INVALID_JSON = "invalid_json", "Write one JSON object in UTF-8, without NaN or Infinity."
    WRONG_TYPE = "wrong_type", "Compare the field with shards/README.md."
    MISSING_FIELD = (
        "missing_field",
        "Add the column, say by --keys which other one it is, or name the right --format.",
    )
    UNREAD_COLUMN = (
        "unread_column",
        "Put what it says into the prompt, or leave the column behind with --ignore.",
    )
    VIDEO_OR_AUDIO = (
        "video_or_audio",
        "Leave such rows out, or give some of the video's frames as images.",
    )

    MISSING_IMAGE = (
        "missing_image",
        "Check the path and --images_root; for what lies behind a URL, add --fetch true.",
    )
    UNDECODABLE_IMAGE = (
        "undecodable_image",
        "Download or copy the image again, or convert it to JPEG, PNG or WebP.",
    )
    UNKNOWN_RANGE = "unknown_range", "Scale the image's values to 0 to 255 and store it as an 8-bit PNG."
    UNFIT_IMAGE = "unfit_image", "Resize or pad the image to a shape that the model's processor takes."
    HUGE_IMAGE = "huge_image", "Scale the image down, or crop a very long one, before you store it."
    HUGE_SAMPLE = "huge_sample", "Scale its images down, or shorten its texts, before you store them."
    IMAGE_COUNT = "image_count", "Give as many images as the prompt has image blocks (or no blocks at all)."

    EMPTY_PROMPT = "empty_prompt", "Give the user's turn a text."
    WRONG_TURNS = "wrong_turns", "End the prompt with the user's turn and answer it with one assistant turn."
    NOT_RENDERED = (
        "not_rendered",
        "Change the texts of the sample, or the chat template, as the message says.",
    )
    RENDERED_PROMPT = (
        "rendered_prompt",
        "Give the words of each turn alone: training and generation put the model's own template around them.",
    )
    SPECIAL_TOKEN = (
        "special_token",
        "Remove it from the text: a model would not read it as these letters. An image's place in a prompt is an "
        "image block, or `<image>` where rows are imported.",
    )
    MISSING_ANSWER = "missing_answer", "Give both `chosen` and `rejected`, or neither."
    EMPTY_ANSWER = "empty_answer", "Leave the field out if there is no answer."
    UNPAIRED = (
        "unpaired",
        "Pair it with a better answer to the same prompt: no objective learns from it alone.",
    )
    RIGHT_ALREADY = "right_already", "Nothing to do: its authors leave it out, too."
    MISSING_EVIDENCE = (
        "missing_evidence",
        "Judge both answers claim by claim first, or use a corrector that reads the answers only (LLMCorrector).",
    )
    EQUAL_ANSWERS = "equal_answers", "Drop the pair: nothing tells its sides apart."
    BAD_SPAN = "bad_span", "Count characters of the side's own text, from 0, the end exclusive."

    TOO_LONG = "too_long", "Raise the length limit, or use shorter prompts or smaller images."
    NO_TARGET = "no_target", "Give the sample an answer that leaves tokens to learn."


class BadSample(UserError):
    """A sample that cannot be used: what is wrong, where it lies, and what to do.

    Attributes:
        reason: the named cause, for counting.
        where: shard and key, or source file and row.
        detail: what was expected and what came, naming the field.
    """

    def __init__(self, reason: Reason, where: str, detail: str) -> None:
        # All three go to `args`, so that the exception survives pickling between processes.
        super().__init__(reason, where, detail)
        self.reason, self.where, self.detail = reason, where, detail

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}. {self.reason.remedy} [{self.reason}]"
