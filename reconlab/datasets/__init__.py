"""Datasets: embedded procedural shapes, folders of meshes, the builder, and the DataModule."""
