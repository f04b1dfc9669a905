"""The tables of a benchmark."""

from typing import TYPE_CHECKING, Any

from ..foundation.precision import at_a_time
from ..io.report import Report, Value
from ..synthesis.pipeline import Pipeline
from ..synthesis.settings import PipelineSettings
from . import flops
from .stages import DECODE, DETECT, EDIT, FIELD, OTHER, STAGES, TEXT, WRITE, Run

if TYPE_CHECKING:
    from .benchmark import Measured

GIB = 2**30
ABOUT = {
    TEXT: "text, embedded once a run", FIELD: "field: denoising", DECODE: "field: decoding", DETECT: "detecting cells",
    EDIT: "editing cells", OTHER: "choosing, putting back, records", WRITE: "encoding and writing, beside the rest",
}  # fmt: skip
WARM = "Models are loaded and one image is made before anything is timed."


def operations(pipeline: Pipeline, settings: PipelineSettings) -> dict[str, Any]:
    """Return the floating-point operations that a field, its decoding and a batch of cells take, as TFLOP."""
    if pipeline.generator is None:
        raise ValueError("a benchmark needs a generator")
    model = pipeline.generator.model
    together = at_a_time(settings.cell.together, model.device)
    return {
        "tflop_field": flops.field(model, settings.normal) / 1e12,
        "tflop_decode": flops.decoding(model, settings.normal.size) / 1e12,
        "tflop_batch_of_cells": flops.cells(pipeline.editor.model, settings.cell, together) / 1e12,
        "fields_at_a_time": at_a_time(settings.normal.batch, model.device),
        "cells_at_a_time": together,
    }


def tables(measured: "Measured") -> dict[str, Report]:
    """Return the tables by the name of their files."""
    return {
        "speed": _stages(measured), "speed_count": _counts(measured), "speed_side": _sides(measured),
        "speed_diffusers": _compared(measured),
    }  # fmt: skip


def _stages(measured: "Measured") -> Report:
    """Return the seconds by stage of the longest run."""
    run, facts = measured.counts[-1], measured.facts
    fields = -(-run.images // facts["fields_at_a_time"]) * facts["fields_at_a_time"]
    batches = -(-run.cells // facts["cells_at_a_time"])
    done = {FIELD: facts["tflop_field"] * fields, DECODE: facts["tflop_decode"] * run.images,
            EDIT: facts["tflop_batch_of_cells"] * batches}  # fmt: skip
    rows: list[tuple[Value, ...]] = [("loading and hashing the models, once a run", measured.load, None, None, None)]
    for name in (*STAGES, WRITE):
        seconds = run.stages.get(name, 0.0)
        share = done[name] * 1e12 / (seconds * measured.peak) if name in done and seconds else None
        a_image = done[name] / run.images if name in done else None
        rows.append((ABOUT[name], seconds, seconds / run.images, a_image, None if share is None else 100 * share))
    total = sum(done.values())
    rows.append(("an image in all, models loaded", run.total, run.each, total / run.images,
                 100 * total * 1e12 / (run.total * measured.peak)))  # fmt: skip
    said = {
        "images": run.images, "cells_an_image": run.cells / run.images, "side": run.side,
        "images_a_minute": 60 / run.each, "peak_memory_gib": run.peak / GIB,
        "gemm_peak_tflops": measured.peak / 1e12,
    }  # fmt: skip
    return Report(
        "Speed: where the time goes",
        said | facts,
        ("stage", "s", "s an image", "TFLOP an image", "% of the GEMM peak"),
        tuple(rows),
        (
            WARM,
            "Operations are counted on the networks (a multiplication and an addition are two), images that fill a "
            "batch included; the peak is that of products of large matrices in the precision of the run, measured "
            "just before.",
            "The detector searches each field; then cells are taken on a grid, so that every image costs the same.",
        ),
    )


def _counts(measured: "Measured") -> Report:
    """Return the cost against the number of images."""
    rows = [(run.images, run.total, run.each, 60 / run.each, run.peak / GIB) for run in measured.counts]
    return Report(
        "Speed: cost against the number of images",
        measured.facts | {"side": measured.counts[0].side},
        ("images", "s", "s an image", "images a minute", "peak memory, GiB"),
        tuple(rows),
        (WARM, "Memory is that of the process, on a GPU that which PyTorch allocated on it."),
    )


def _sides(measured: "Measured") -> Report:
    """Return the cost against the side of an image."""
    rows = [_side(run) for run in measured.sides]
    return Report(
        "Speed: cost against the side of an image",
        measured.facts | {"images": 2},
        ("side", "s an image", "field, s", "decoding, s", "editing, s", "s a megapixel of field", "peak memory, GiB"),
        tuple(rows),
        (WARM, "For each side, one image is made first and not timed."),
    )


def _side(run: Run) -> tuple[Value, ...]:
    field, decode, edit = (run.stages.get(name, 0.0) / run.images for name in (FIELD, DECODE, EDIT))
    return run.side, run.each, field, decode, edit, (field + decode) / (run.side**2 / 1e6), run.peak / GIB


def _compared(measured: "Measured") -> Report:
    """Return the cost of diffusers, of cells one by one and of the paper's recipe, compared with ours."""
    seconds, off = measured.fields, measured.off
    precision = measured.facts["precision"]
    ours, plain, same = seconds["ours"], seconds["as it ships"], seconds[f"in {precision}"]
    together, alone = measured.cells
    image = measured.counts[-1].each
    cells, steps = measured.settings.cells, measured.settings.paper_steps
    rows: tuple[tuple[Value, ...], ...] = (
        ("a field, s", ours, plain, same, seconds["ours, fp32"]),
        ("CytoSynth is faster by", None, plain / ours, same / ours, seconds["ours, fp32"] / ours),
        ("its pixels differ by at most (CytoSynth: from its own in fp32; diffusers: from CytoSynth in that precision)",
         off["ours"][0], off["as it ships"][0], off[f"in {precision}"][0], None),
        ("its pixels differ in the mean by", off["ours"][1], off["as it ships"][1], off[f"in {precision}"][1], None),
        (f"{cells} cells, s (right: one by one)", together, None, None, alone),
        ("together they are faster by", None, None, None, alone / together),
        (f"an annotated image, s (right: the paper's recipe, {steps} guided steps, fp32, one by one)", image, None,
         None, measured.paper.total),
        ("an image is faster by", None, None, None, measured.paper.total / image),
    )  # fmt: skip
    return Report(
        "Speed: against diffusers and the paper's recipe, in one run",
        measured.facts | {"side": measured.settings.pipeline.normal.size, "repeats": measured.settings.repeats},
        ("measure", "CytoSynth", "diffusers as it ships",
         f"diffusers in {precision}, {measured.facts['memory_format']}", "CytoSynth, otherwise"),
        rows,
        (
            "Medians of alternating calls, after one that is not timed. Fields are generated by DDIM, one at a time, "
            "from the same noise by the same weights.",
            "CytoSynth, otherwise: the field in fp32; cells one by one; an image by the paper's recipe, once.",
        ),
    )  # fmt: skip
