"""Train a policy: `python train.py fit --config configs/dpo.yaml`."""

from rlaifv_pl.cli import main

if __name__ == "__main__":
    main()
