"""Train a policy: `python train.py fit --config configs/dpo.yaml`. The same as `rlaifv fit`."""

from rlaifv_pl.cli.commands import main

if __name__ == "__main__":
    main()
