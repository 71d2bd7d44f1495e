"""The laboratory: the LightningModule, its callbacks, the run directory, export."""

from reconlab.lab.reconstruction import Reconstruction

__all__ = ["Reconstruction"]
