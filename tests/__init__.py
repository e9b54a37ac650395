"""Tests of rlaifv_pl."""

from tests.torchvision_shim import install_torchvision_shim

# Here and not in conftest.py: a spawned worker inherits sys.path and imports this package, but no conftest.
install_torchvision_shim()
