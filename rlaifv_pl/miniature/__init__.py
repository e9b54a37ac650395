"""The miniature world: a VLM small enough to align on a laptop, and pictures whose truth is known.

Reading order: scenes (pictures), language (captions and questions), claims (the splitter and the exact labeler), model
(a LLaVA of a million weights), optimizer, shards (samples of all that), figures (how much a model makes up), evaluator
(figures between rounds).
"""

from pathlib import Path


def packaged_model(name: str) -> Path:
    """Directory of a model that comes with the package: `base` hallucinates, `labeler` answers yes or no.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    path = Path(__file__).parent / "weights" / name
    if not path.is_dir():
        names = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        raise FileNotFoundError(f"no model {name!r} comes with the package, expected one of {names}")
    return path


def resolve_shipped() -> None:
    """Let configs and options of every command name a model that comes with the package: `${shipped:base}`."""
    from omegaconf import OmegaConf

    OmegaConf.register_resolver("shipped", lambda name: str(packaged_model(name)), replace=True)
