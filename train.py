"""Train a policy: `python train.py fit --config dpo` is `rlaifv fit --config dpo`."""

from rlaifv_pl.cli.commands import main

if __name__ == "__main__":
    main()
