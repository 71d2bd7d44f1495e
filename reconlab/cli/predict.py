"""``reconlab predict``: image files in, meshes out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from reconlab.errors import ReconlabError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def main(argv: Sequence[str]) -> int:
    """Reconstruct each image; a bad one is reported and the others are still done (exit status 2 at the end)."""
    parser = argparse.ArgumentParser(
        "reconlab predict",
        description="Reconstruct shapes from images. An alpha channel is used as the mask; without one, a plain "
        "background (the colour of the image's border) is assumed.",
    )
    parser.add_argument("--ckpt_path", required=True, help="checkpoint of a reconlab run")
    parser.add_argument("--images", required=True, nargs="+", help="image files or folders")
    parser.add_argument("--out", required=True, help="folder for <image name>.obj and .glb")
    parser.add_argument("--formats", default="obj,glb", help="of obj, glb, ply, off, stl (default: obj,glb)")
    parser.add_argument("--image_size", type=int, default=None, help="input side (default: as in training)")
    parser.add_argument("--no_crop", action="store_true", help="keep the framing instead of centring the object")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--picture", action="store_true", help="also write a picture of inputs and reconstructions")
    options = parser.parse_args(argv)

    from reconlab.lab.predict import load_network, predict_file, trained_image_size

    files = image_files(options.images)
    checkpoint = Path(options.ckpt_path)
    network = load_network(checkpoint).to(options.device)
    size = options.image_size or trained_image_size(checkpoint) or 128
    formats = tuple(f.strip() for f in options.formats.split(",") if f.strip())
    failed = 0
    rows = []
    for file, name in zip(files, output_names(files), strict=True):
        try:
            result = predict_file(network, file, Path(options.out) / name, size, formats, crop=not options.no_crop)
        except ReconlabError as error:
            failed += 1
            print(f"{file}: failed: {error}")
            continue
        rows.append((name, result))
        print(f"{file}: {result.note}; wrote {', '.join(str(p) for p in result.files)}")
    if options.picture and rows:
        from reconlab.lab.predict import picture_of

        path = Path(options.out) / "reconstructions.png"
        picture_of(rows, path)
        print(f"picture: {path}")
    if failed:
        raise ReconlabError(f"{failed} of {len(files)} images could not be reconstructed (named above).")
    return 0


def image_files(arguments: Sequence[str]) -> list[Path]:
    """Files as given, folders as the images in them, in order."""
    files: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise ReconlabError(f"The folder {path} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")
            files += found
        else:
            files.append(path)
    return files


def output_names(files: Sequence[Path]) -> list[str]:
    """Stems; where two files share one, the folder's name goes before it, then a number."""
    names: list[str] = []
    for file in files:
        name = file.stem
        if name in names:
            name = f"{file.parent.name}_{name}"
        base, number = name, 2
        while name in names:
            name, number = f"{base}_{number}", number + 1
        names.append(name)
    return names
