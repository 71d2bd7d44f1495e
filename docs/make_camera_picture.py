"""Draws docs/images/cameras.png: the 25 views around a chair, and the chair from four azimuths."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

mpl.use("Agg")
from matplotlib import pyplot as plt

from reconlab.cameras import hemisphere_views, softras_cameras
from reconlab.datasets.synth import generate
from reconlab.renderers.hard import render_rgba


def main() -> None:
    """Write the picture beside this file."""
    vertices, faces, colors = generate("chair", 3).mesh()
    eyes = hemisphere_views().position.numpy()
    figure = plt.figure(figsize=(11, 3.6))
    axes = figure.add_subplot(1, 5, 1, projection="3d")
    # matplotlib's z is up: show the object's (x, z, y)
    axes.scatter(eyes[:, 0], eyes[:, 2], eyes[:, 1], s=8)
    corners = vertices[faces[:: max(1, len(faces) // 400)]].mean(1)
    axes.scatter(corners[:, 0], corners[:, 2], corners[:, 1], s=1, c="grey")
    axes.quiver(0, 0, 0, 0, -1.5, 0, color="red")
    axes.text(0, -1.9, 0, "front, -z", color="red", fontsize=7)
    axes.set(xlabel="x", ylabel="z", zlabel="y (up)", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), zlim=(0, 2.8))
    axes.tick_params(labelsize=5)
    azimuths = [0.0, 90.0, 180.0, 270.0]
    cameras = softras_cameras(azimuths, 20.0, half_fov=12.0)
    mesh = (torch.as_tensor(vertices), torch.as_tensor(faces))
    images = render_rgba(*mesh, cameras, 256, face_colors=torch.as_tensor(colors))
    for k, image in enumerate(np.asarray(images)):
        axis = figure.add_subplot(1, 5, k + 2)
        axis.imshow(image)
        axis.set_title(f"azimuth {azimuths[k]:.0f}", fontsize=8)
        axis.axis("off")
    path = Path(__file__).parent / "images" / "cameras.png"
    path.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
