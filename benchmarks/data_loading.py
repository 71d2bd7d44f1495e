"""Does data keep up: samples per second of one process against the decoder's and the disk's own limits.

Question: where does the time of a sample go, and what does the decoded cache (``data.cache``) take off it? The data
are procedural shapes as large as ShapeNet's are published (24 pictures of 137 pixels, 100000 surface and occupancy
points). Control: for the same epoch of the same samples, the same files only decompressed (PIL and zlib alone, no
arrays made, nothing checked, resampled or collated), and the same bytes only read. Measure: CPU seconds per sample,
medians, taken in turn. What a cold disk gives is wall time after the system was told to forget the files
(``posix_fadvise``), and depends on the machine. Starting workers is wall time, and CPU seconds of each worker, to the
first batch.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import measure, parse, save, show
from PIL import Image

from reconlab.datasets import format as files
from reconlab.datasets.builder import build_synth
from reconlab.datasets.content import Sizes
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.datasets.items import every_view
from reconlab.datasets.loading import collate
from reconlab.datasets.pictures import paint
from reconlab.datasets.samples import Cache, ShapeDataset, choose

PAPER = Sizes(views=24, image_size=137, points=100000, queries=100000)
COUNT = 6
"""Shapes per category."""
SHAPENET = 43783
"""Shapes of the 13 categories of Choy et al."""
FOLDERS = int(os.environ.get("FOLDERS", "2000"))
"""Folders of the start-up measurement; 43783 takes a minute to make."""
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "DPC + DRWR, 4 pictures of 128": (("images", "views"), {"batch_size": 4, "views": 4, "view_size": 128}),
    "AtlasNet + DR-KFS, 224, 10000 points": (
        ("images", "surface", "mesh"),
        {"batch_size": 32, "image_size": 224, "points": 10000},
    ),
    "Shape Generator, 2 pictures of 64": (
        ("images", "masks", "views"),
        {"batch_size": 64, "image_size": 64, "views": 2, "view_size": 64},
    ),
    "Pixel2Mesh, 224, 10000 points": (
        ("images", "cameras", "surface", "normals"),
        {"batch_size": 64, "image_size": 224, "points": 10000},
    ),
    "3D-R2N2, 127, voxels": (("images", "voxels"), {"batch_size": 36, "image_size": 127}),
    "occupancies, 128, 2048 of 100000": (("images", "occupancy"), {"batch_size": 32}),
}
"""Needs and sizes of the paper profiles (configs/profiles)."""
START = """
import functools, importlib, os, sys, time
import torch
torch.set_num_threads(1)
from reconlab.datasets import datamodule, loading
mode, workers, root = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if mode != "preloaded":
    loading.PRELOAD.clear()
if mode == "Lightning":
    datamodule.start_worker = functools.partial(importlib.import_module, "reconlab.datasets.datamodule")
data = datamodule.ReconstructionData(root, batch_size=2, num_workers=workers)
data.require(("images", "surface"), "a benchmark")
data.setup("fit")
start = time.perf_counter()
iterator = iter(data.train_dataloader())
next(iterator)
wall, ticks = time.perf_counter() - start, 0
for worker in getattr(iterator, "_workers", ()):
    with open(f"/proc/{worker.pid}/stat") as file:
        ticks += sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))
print(wall, ticks / os.sysconf("SC_CLK_TCK") / max(1, workers))
"""


class Noted(Cache):
    """Keeps nothing, and a list of what was asked for."""

    def __init__(self) -> None:
        super().__init__(0)
        self.paths: list[Path] = []

    def get(self, path: Path, read: Callable[[Path], Any]) -> Any:
        """Read it."""
        self.paths.append(path)
        return super().get(path, read)


def dataset(
    root: Path, needs: tuple[str, ...], settings: dict[str, Any], cache: str | None, mib: int
) -> ShapeDataset:
    """The training samples."""
    data = ReconstructionData(str(root), cache=cache, cache_mib=mib, **settings)
    data.require(needs, "a benchmark")
    data.setup("fit")
    return data.dataset("train")


def epoch(data: ShapeDataset, number: int, batch: int) -> None:
    """Every sample once, in batches."""
    for start in range(0, len(data), batch):
        collate([data[number, i] for i in range(start, min(len(data), start + batch))])


def decompress(path: Path) -> None:
    """What PIL or zlib must do, and nothing else."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                archive.read(name)
    elif path.is_file():
        files.read_binvox(path)


def asked(root: Path, needs: tuple[str, ...], settings: dict[str, Any]) -> list[Path]:
    """The files that one epoch reads, each as often as it does."""
    data = dataset(root, needs, settings, None, 0)
    data.cache = Noted()
    epoch(data, 1, 1)
    return [p for p in data.cache.paths if p.is_file()]


def samples(root: Path, cache: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Each case: files, decoded cache, arrays in memory; and the limits."""
    for name, (needs, settings) in CASES.items():
        batch, numbers = settings["batch_size"], count(1)
        plain = dataset(root, needs, settings, None, 0)
        decoded = dataset(root, needs, settings, cache, 0)
        memory = dataset(root, needs, settings, None, 4096)
        read = asked(root, needs, settings)
        contestants: dict[str, Callable[[], Any]] = {
            "files": lambda d=plain, b=batch, n=numbers: epoch(d, next(n), b),
            "decoded cache": lambda d=decoded, b=batch, n=numbers: epoch(d, next(n), b),
            "arrays in memory": lambda d=memory, b=batch, n=numbers: epoch(d, next(n), b),
            "decompression alone": lambda r=read: [decompress(p) for p in r],
            "reading alone": lambda r=read: [p.read_bytes() for p in r],
        }
        for number in range(PAPER.views):  # all views in memory
            epoch(memory, number, batch)
        seconds = {k: v / len(plain) for k, v in measure(contestants, rounds).items()}
        record = show(f"one sample: {name}", seconds)
        record["samples_per_second"] = {k: 1 / v for k, v in seconds.items()}
        record["files_per_sample"] = len(read) / len(plain)
        record["file_bytes_per_sample"] = sum(p.stat().st_size for p in read) / len(plain)
        print(
            f"  {record['samples_per_second']['files']:.0f} samples/s from files, "
            f"{record['samples_per_second']['decoded cache']:.0f} from the cache; "
            f"{record['file_bytes_per_sample'] / 1e3:.0f} kB of files each"
        )
        yield record


def parts(root: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """The steps between decoded arrays and a sample."""
    rgba = files.read_png(next(root.glob("*/*/views/000.png")))
    for size in (137, 128, 224):
        rgb, alpha = np.empty((3, size, size), np.float32), np.empty((size, size), np.float32)
        steps: dict[str, Callable[[], Any]] = {
            "one numba pass": lambda c=rgb, a=alpha: paint(rgba, c, a),
            "PyTorch": lambda s=size: torch_picture(rgba, s),
        }
        yield show(f"a picture of 137 pixels, on white at {size}", measure(steps, rounds))
    rng, cloud = np.random.default_rng(0), files.read_npz(next(root.glob("*/*/pointcloud.npz")))["points"]
    pick = choose(len(cloud), 2500, rng)
    yield show(
        "2500 of 100000 points",
        measure(
            {
                "take them": lambda: cloud[pick],
                "choose them (without repetition)": lambda: choose(len(cloud), 2500, rng),
                "choose them (with repetition)": lambda: rng.integers(len(cloud), size=2500),
                "seed the generator": lambda: np.random.default_rng([0, 1, 2, 3]),
            },
            rounds,
        ),
    )


def torch_picture(rgba: np.ndarray, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What ``paint`` replaces."""
    image = torch.from_numpy(rgba.astype(np.float32) / 255.0).permute(2, 0, 1)
    image = torch.cat([image[:3] * image[3:], image[3:]])
    if image.shape[1] != size:
        image = torch.nn.functional.interpolate(image[None], size=(size, size), mode="bilinear", antialias=True)[0]
        image = image.clamp(0, 1)
    return (image[:3] + 1.0 - image[3:]).clamp(0, 1), image[3]


def forget(paths: list[Path]) -> int:
    """Have the system drop what it keeps of the files; returns their bytes."""
    total = 0
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        total += os.fstat(handle).st_size
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    return total


def cold(root: Path, cache: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Wall time of an epoch whose files are on the disk alone."""
    folder = [p for p in Path(cache).rglob("*.train.*.decoded")]
    for name, (needs, settings) in list(CASES.items())[:2]:
        read = sorted(set(asked(root, needs, settings)))
        kinds = {"pictures", "cameras"} if "views" in needs else {"pictures", "surface", "mesh"}
        shards = [p for p in folder if p.name.split(".")[2] in kinds]
        times: dict[str, list[float]] = {
            "files": [],
            "decoded cache": [],
            "reading the files": [],
            "reading the cache": [],
        }
        sizes = {}
        for _ in range(rounds):
            for kind, where, paths in (("files", None, read), ("decoded cache", cache, shards)):
                data = dataset(root, needs, settings, where, 0)
                gc.collect()
                sizes[kind] = forget(paths)
                start = time.perf_counter()
                epoch(data, 1, settings["batch_size"])
                times[kind].append((time.perf_counter() - start) / len(data))
                length = len(data)
                del data
                gc.collect()
                forget(paths)
                start = time.perf_counter()
                for path in paths:
                    path.read_bytes()
                times["reading the files" if where is None else "reading the cache"].append(
                    (time.perf_counter() - start) / length
                )
        record = show(
            f"one sample, cold disk, wall time: {name}", {k: statistics.median(v) for k, v in times.items()}
        )
        record["bytes"] = sizes
        record["disk_bytes_per_second"] = sizes["decoded cache"] / length / record["seconds"]["reading the cache"]
        record["clock"] = "wall time, median"
        print(f"  the disk reads {record['disk_bytes_per_second'] / 1e6:.0f} MB/s of the cache")
        yield record


def sizes(root: Path, cache: str) -> dict[str, Any]:
    """Bytes of a shape on disk, and in the cache."""
    shapes = [p for p in root.glob("*/*") if p.is_dir()]
    stored: dict[str, float] = {}
    for shape in shapes:
        for path in shape.rglob("*"):
            if path.is_file():
                key = "pictures" if path.suffix == ".png" else path.name
                stored[key] = stored.get(key, 0) + path.stat().st_size / len(shapes)
    data = ReconstructionData(str(root), cache=cache)
    data.require(("images", "views", "surface", "occupancy", "voxels", "mesh"), "a benchmark")
    data.setup("fit")
    train = len(data.dataset("train"))
    kept: dict[str, float] = {}
    for path in Path(cache).rglob("*.train.*.decoded"):
        kind = path.name.split(".")[2]
        kept[kind] = kept.get(kind, 0) + path.stat().st_size / train
    print(f"\nkB a shape on disk: { {k: round(v / 1e3, 1) for k, v in stored.items()} }")
    print(f"kB a shape in the cache: { {k: round(v / 1e3, 1) for k, v in kept.items()} }")
    return {"case": "bytes per shape", "files": stored, "cache": kept, "shapenet": SHAPENET}


def folders(rounds: int) -> dict[str, Any]:
    """Looking over a dataset of many shapes."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        cloud = files.npz_bytes({k: np.zeros((4, 3), np.float32) for k in ("points", "normals")})
        for i in range(FOLDERS):
            views = root / f"c{i % 13:02d}" / f"{i:032x}" / files.VIEWS
            views.mkdir(parents=True)
            (views.parent / files.POINTCLOUD).write_bytes(cloud)
            for name in (files.POINTS, files.VOXELS, files.MESH, files.CAMERAS):
                (views.parent / name).touch()
            for k in range(PAPER.views):
                (views / f"{k:03d}.png").touch()
        for category in root.iterdir():
            (category / "train.lst").write_text("".join(f"{p.name}\n" for p in category.iterdir()))
        data = ReconstructionData(str(root))
        data.require(("images", "views", "surface", "normals", "occupancy", "voxels", "mesh"), "a benchmark")
        data.setup()
        from reconlab.datasets.decode import _fingerprint  # what starting with a cache adds

        shapes = {i.id: i for i in data.items["train"]}
        steps: dict[str, Callable[[], Any]] = {
            "look for all files (setup)": data.setup,
            "list every view (eval_view: all)": lambda: every_view(data.items["train"]),
            "fingerprint of all pictures": lambda: _fingerprint(shapes, "pictures"),
        }
        seconds = measure(steps, min(rounds, 3))
        record = show(f"{FOLDERS} shapes of {PAPER.views} pictures", seconds)
        record["seconds_for_shapenet"] = {k: v * SHAPENET / FOLDERS for k, v in seconds.items()}
        print(f"  for {SHAPENET}: { {k: round(v, 1) for k, v in record['seconds_for_shapenet'].items()} } s")
        return record


def starts(root: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """To the first batch."""
    for workers in (0, 2, 4):
        modes = ("preloaded", "not preloaded", "Lightning") if workers else ("preloaded",)
        wall: dict[str, list[float]] = {m: [] for m in modes}
        each: dict[str, list[float]] = {m: [] for m in modes}
        for _ in range(min(rounds, 3)):
            for mode in modes:
                command = [sys.executable, "-c", START, mode, str(workers), str(root)]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                wall[mode].append(float(out[0]))
                each[mode].append(float(out[1]))
        record = show(
            f"first batch, {workers} workers, wall time", {m: statistics.median(v) for m, v in wall.items()}
        )
        record["cpu_seconds_of_each_worker"] = {m: statistics.median(v) for m, v in each.items()}
        record["clock"] = "wall time, median"
        print(f"  CPU s of each worker: {record['cpu_seconds_of_each_worker']}")
        yield record


def main() -> None:
    """Run all of it, in some minutes."""
    options = parse(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        root, cache = Path(temporary) / "data", str(Path(temporary) / "cache")
        start = time.process_time()
        report = build_synth(root, count=COUNT, sizes=PAPER, progress=False)
        built = (time.process_time() - start) / len(report.built)
        print(f"{built:.2f} CPU s to build a shape")
        records: list[dict[str, Any]] = [{"case": "build, CPU seconds per shape", "seconds": {"build": built}}]
        start = time.process_time()
        records.append(sizes(root, cache))
        shapes = len(list(root.glob("*/*/checksums.json")))
        trained = sum(len(files.read_list(p)) for p in root.glob("*/train.lst"))
        records[-1]["cache_cpu_seconds_per_shape"] = (time.process_time() - start) / trained
        print(f"{records[-1]['cache_cpu_seconds_per_shape']:.3f} CPU s a shape to make the cache ({shapes} shapes)")
        records += samples(root, cache, options.rounds)
        records += parts(root, options.rounds)
        records += cold(root, cache, options.rounds)
        records += starts(root, options.rounds)
    records.append(folders(options.rounds))
    save(records, options)


if __name__ == "__main__":
    main()
