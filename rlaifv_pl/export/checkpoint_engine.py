"""The policy of a run's checkpoint answers, without being exported first."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rlaifv_pl.export.checkpoint import checkpoint_path, load_trained
from rlaifv_pl.feedback.engines.engine import EngineError
from rlaifv_pl.feedback.engines.in_memory import InMemoryEngine
from rlaifv_pl.feedback.engines.lazy import LazyEngine
from rlaifv_pl.feedback.engines.transformers_engine import own_device
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import load_processor
from rlaifv_pl.models.vlm import VLM


@dataclass(kw_only=True)
class CheckpointEngine(LazyEngine):
    """The policy of a checkpoint: the base with what the run has trained of it, LoRA or weights, whole or in slices.

    Args:
        run: directory of the run.
        checkpoint: name of one in the run's `checkpoints`, without `.ckpt`. `last` is the one that it is when the
            model is first needed; a run that goes on changes nothing.
        device: such as cuda:1; this process's GPU, or the CPU where there is none, unless given.
        batch_size: rows at a time.
        fill_tokens: longest filled-in form.
        fill_tries: drafts of a form; the first is greedy.
    """

    run: str
    checkpoint: str = "last"
    device: str | None = None
    batch_size: int = 16
    fill_tokens: int = 1024
    fill_tries: int = 3

    @cached_property
    def identity(self) -> str:
        """Hash of the weights as they were read, the chat template and the image processing."""
        return self.live.identity

    @cached_property
    def _path(self) -> Path:
        return checkpoint_path(self.run, self.checkpoint)

    def load(self) -> InMemoryEngine:
        """The base with what the run has trained of it.

        Raises:
            EngineError: the checkpoint changed since it was first read.
        """
        found = load_trained(self.run, self._path.stem)
        device = self.device or own_device()
        model = VLM(found.model, found.spec.attention).requires_grad_(False).eval().to(device)
        live = InMemoryEngine(
            model, Chat(load_processor(found.spec)), self.batch_size, self.fill_tokens, self.fill_tries
        )
        if self.__dict__.setdefault("identity", live.identity) != live.identity:
            raise EngineError(
                f"{self._path} holds other weights than when it was first read: the run was started afresh. Start "
                "again, with another file for what is answered."
            )
        return live
