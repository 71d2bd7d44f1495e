"""The laboratory: the LightningModules, their callbacks, the run directory, export."""

from reconlab.lab.mvcnn import MultiViewClassification
from reconlab.lab.reconstruction import Reconstruction

__all__ = ["MultiViewClassification", "Reconstruction"]
