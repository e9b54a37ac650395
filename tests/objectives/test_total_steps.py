"""How many updates the schedule of the learning rate spans."""

from types import SimpleNamespace

import pytest

from rlaifv_pl.objectives.lr_schedule import total_steps


def planned(epochs: int, steps: int, limit: float, accumulate: int, a_round: int | None = None) -> int:
    """Of a run with these settings of the trainer, when an epoch has 10 batches and a round so many epochs."""
    trainer = SimpleNamespace(
        datamodule=SimpleNamespace(batches_per_epoch=lambda: 10),
        max_epochs=epochs,
        max_steps=steps,
        limit_train_batches=limit,
        accumulate_grad_batches=accumulate,
    )
    return total_steps(trainer, a_round or epochs)


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ((3, -1, 1.0, 1), 30),
        ((3, -1, 1.0, 4), 9),
        ((3, 12, 1.0, 1), 12),
        ((3, 100, 1.0, 1), 30),
        ((-1, 100, 1.0, 1), 100),
        ((3, -1, 4, 1), 12),
        ((3, -1, 40, 1), 30),
        ((3, -1, 0.5, 2), 9),
        ((6, -1, 1.0, 1, 2), 20),
    ],
)
def test_the_schedule_spans_the_updates_that_the_run_will_make(settings, updates):
    assert planned(*settings) == updates


def test_a_run_without_an_end_is_refused():
    with pytest.raises(ValueError, match=r"max_epochs or trainer\.max_steps"):
        planned(-1, -1, 1.0, 1)
