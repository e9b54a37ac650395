"""Lets processors that own a video processor run in tests on a CPU-only torch.

The published wheels of torchvision are CUDA builds; beside a CPU torch their compiled operators do not load, and the
import fails because two operators have no schema. Declaring the schemas is enough for all that processors
use. Get the wheel with `pip install --no-deps --target build/torchvision torchvision==0.28.0`: in a folder of
its own, because in site-packages it breaks every process that imports transformers without this shim.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

import torch

SIDE_FOLDER = Path(__file__).parents[1] / "build" / "torchvision"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a Library undoes its declarations when it is collected


def install_torchvision_shim() -> bool:
    """Whether `import torchvision` works, after helping it; call before transformers is first imported."""
    if importlib.util.find_spec("torchvision") is None:
        if not SIDE_FOLDER.is_dir():
            return False
        sys.path.append(str(SIDE_FOLDER))
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _declared.append(library)
        importlib.import_module("torchvision")
    return True
