"""The laboratory: the LightningModules, their callbacks, the run directory, export.

Names are looked up when they are asked for: ``reconlab evaluate`` uses this package's files without Lightning, whose
import takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reconlab.lab.mvcnn import MultiViewClassification
    from reconlab.lab.reconstruction import Reconstruction

__all__ = ["MultiViewClassification", "Reconstruction"]


def __getattr__(name: str) -> Any:
    if name == "MultiViewClassification":
        from reconlab.lab.mvcnn import MultiViewClassification

        return MultiViewClassification
    if name == "Reconstruction":
        from reconlab.lab.reconstruction import Reconstruction

        return Reconstruction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
