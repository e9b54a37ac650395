"""`train.py` several times in the same processes, to save their starts: `torchrun ... -m tests.training.many CONFIGS`.

What ends a run is written beside its config, `<name>.<rank>.txt`; empty where all went well.
"""

import os
import sys
from pathlib import Path

from rlaifv_pl.cli.fit import main


def run(path: Path) -> None:
    """One run, resumed where it has checkpoints."""
    said = ""
    try:
        main(["fit", "--config", str(path), "--ckpt_path", "last"])
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"
    path.with_name(f"{path.stem}.{os.environ.get('RANK', 0)}.txt").write_text(said)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name))
