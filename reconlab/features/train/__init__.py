"""Trains the bundled weights of the detector and of HardNet; ``python -m reconlab.features.train --help``."""
