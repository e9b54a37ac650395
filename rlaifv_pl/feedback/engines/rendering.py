"""What an engine with a chat template of its own asks."""

from rlaifv_pl.data.collate import not_rendered
from rlaifv_pl.feedback.engines.engine import Request
from rlaifv_pl.models.chat import Chat, message_with_images, prompt_messages
from rlaifv_pl.models.text_checks import ChatError
from rlaifv_pl.records import Sample


def prompt_text(chat: Chat, sample: Sample) -> str:
    """A sample's prompt, rendered.

    Raises:
        BadSample: the template does not take it, or a text holds a special token.
    """
    try:
        return chat.ask(prompt_messages(sample), len(sample.images))
    except ChatError as error:
        raise not_rendered(error, f"sample {sample.key}") from error


def request_text(chat: Chat, request: Request) -> str:
    """A request, rendered; special tokens that it speaks of, as in a claim, are read as words.

    Raises:
        BadSample: the template does not take it; named by what the request is about.
    """
    try:
        return chat.render(
            [message_with_images(chat.texts.plain(request.text), len(request.images))], ask=True
        )
    except ChatError as error:
        raise not_rendered(error, request.where) from error
