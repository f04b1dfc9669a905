"""`cytosynth detect`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..data.shard import Shard
from ..errors import UsageError
from . import app, finish, there
from .data_options import Annotations, ImageFolder, Key, Pseudonymise, Recursive, pseudonyms
from .options import Device, Mpp, RayOption, Scale, ShardOption, Strict


@app.command()
def detect(
    images: Annotated[Path, typer.Argument(callback=there, help="Image, slide, folder, or data set.")],
    out: Annotated[Path, typer.Argument(help="Output folder; the same command continues it.")],
    detector: Annotated[
        str, typer.Option(help="Folder of a detector or of its training run, or 'bundled'.")
    ] = "bundled",
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Score threshold, 0–1.")] = 0.5,
    split: Annotated[str | None, typer.Option(help="Part of the data set. \\[default: all]")] = None,
    scale: Scale = 1.0,
    mpp: Mpp = None,
    strict: Strict = False,
    device: Device = "auto",
    annotations: Annotations = None,
    image_folder: ImageFolder = None,
    recursive: Recursive = False,
    pseudonymise: Pseudonymise = False,
    key: Key = None,
    shard: ShardOption = None,
    ray: RayOption = None,
) -> None:
    """Find cells in images and whole slides; write COCO annotations and results, GeoJSON for QuPath, images with boxes.

    Detectors report nothing below a score of 0.05.
    """
    from ..data.read import Place
    from ..data.slides import reader
    from ..detection import folder, model
    from ..devices import available
    from ..io.bundled import model_folder

    names = pseudonyms(pseudonymise, key)
    found = folder.gather(images, split, Place(annotations, image_folder, recursive)).under(names)
    if mpp is not None and not any(reader.is_slide(path) for _, path in found.files):
        raise UsageError(f"{images}: no slide; images are brought to the detector's scale by --scale; leave --mpp out")
    part = Shard.parse(shard) if shard else None
    path = model_folder(detector, "detector")
    search = partial(folder.detect, found, out, threshold=threshold, scale=scale, mpp=mpp, strict=strict, shard=part)
    if ray:
        from ..scale import ray_engine

        with ray_engine.detector_pool(ray, path, device) as pool:
            data = search(ray_engine.RayFinder(pool))
    else:
        finder = model.load(path)
        finder.network.to(available(device))
        data = search(finder)
    finish(data, out, "annotations.json")
