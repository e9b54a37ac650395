"""How a tokenizer writes a one-word answer."""

from collections.abc import Sequence

from rlaifv_pl.models.chat import Chat, Dialogue, text_message


def word_tokens(chat: Chat, words: Sequence[str]) -> list[list[int]]:
    """For each word, the tokens of this model's vocabulary with which an answer of that word begins.

    These are all tokens that spell the word, in any case and with space around it, and those with which
    the chat template's own answer begins when the vocabulary has no token for the whole word.

    Raises:
        ValueError: two words begin with the same token, so that the first token does not tell them apart.
    """
    special = set(chat.tokenizer.all_special_ids)
    vocabulary = {
        token: chat.tokenizer.convert_tokens_to_string([text]).strip().casefold()
        for text, token in chat.tokenizer.get_vocab().items()
        if token not in special
    }
    found = [
        {token for token, text in vocabulary.items() if text == word.casefold()} or _openings(chat, word)
        for word in words
    ]
    for number, own in enumerate(found):
        others = set().union(*found[:number], *found[number + 1 :])
        if own & others or not own:
            raise ValueError(
                f"the labeler's tokenizer has no first token that tells {words[number]!r} from the other answers "
                f"{[word for word in words if word != words[number]]}. Use a labeler with another tokenizer."
            )
    return [sorted(own) for own in found]


def _openings(chat: Chat, word: str) -> set[int]:
    found = set()
    for written in (word, word.capitalize()):
        pieces = chat.pieces(Dialogue([text_message("user", "?"), text_message("assistant", written)], (0,)))
        opened, _ = chat.open([pieces[0].text], [[]])
        row = chat.extend(opened[0], pieces)
        found.add(row.ids[len(opened[0].ids)])
    return found - {chat.tokenizer.unk_token_id}
