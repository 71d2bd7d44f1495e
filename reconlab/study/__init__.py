"""Perceptual studies: which of two reconstructions looks more like the picture (DR-KFS, section 4.2)."""
