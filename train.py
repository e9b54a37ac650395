"""Train a policy: `python train.py fit --config configs/dpo.yaml`."""

from rlaifv_pl.cli import run

if __name__ == "__main__":
    run()
