"""``reconlab predict``: image files in, meshes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reconlab.cli.parser import CommandParser
from reconlab.errors import ReconlabError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def main(argv: Sequence[str]) -> int:
    """Reconstruct each image; a bad one is reported and the others are still done (exit status 2 at the end)."""
    parser = CommandParser(
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

    formats = tuple(f.strip() for f in options.formats.split(",") if f.strip())
    if not formats:
        raise ReconlabError("--formats is empty; name at least one of obj, glb, ply, off, stl.")
    if options.image_size is not None and options.image_size < 32:
        raise ReconlabError(f"--image_size is {options.image_size}; expected at least 32 pixels.")
    files = image_files(options.images)

    from reconlab.lab.predict import load_network, pick_device, predict_file, trained_image_size

    device = pick_device(options.device)
    checkpoint = Path(options.ckpt_path)
    network = load_network(checkpoint).to(device)
    size = options.image_size or trained_image_size(checkpoint)
    if size is None:
        size = 128
        print(f"{checkpoint} lies outside its run directory: an input of 128 pixels is assumed (--image_size).")
    failed = 0
    rows = []
    for file, name in zip(files, output_names(files), strict=True):
        try:
            result = predict_file(network, file, Path(options.out) / name, size, formats, crop=not options.no_crop)
        except ReconlabError as error:
            failed += 1
            print(f"{file}: failed: {error}")
            continue
        if options.picture:
            rows.append((name, result))
        print(f"{file}: {result.note}; wrote {', '.join(str(p) for p in result.files)}")
    if rows:
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
