"""reconlab: single-image 3D reconstruction, any network with any loss.

Nothing is imported here on purpose: ``reconlab --help`` must answer without loading torch. Use the rooms:
``reconlab.shapes``, ``reconlab.networks``, ``reconlab.losses``, ``reconlab.metrics``, ``reconlab.renderers``.
"""

__version__ = "0.1.0"
