"""The names of everything that can be chosen. Imports no torch, so that help and `info` are quick."""

from typing import Final

from .bethesda import CATEGORIES

PRESETS: Final = {
    "paper": "the paper's settings, on Stable Diffusion 1.5; needs a GPU",
    "bundled": "made for the small bundled foundation; trains on a CPU",
}
PARTS: Final = {
    "foundation": "a small Stable Diffusion, trained from nothing",
    "normal": "stage 1: the Normal Image Generator (LoRA)",
    "cell": "stage 2: the Abnormal Cell Synthesizer (gated self-attention, nine channels)",
    "detector": "a cell detector; as the recipe is, the NILM detector of the pipeline",
    "features": "a cell classifier (ResNet-50), the network of FID@Cytopathology and of the quality gate",
}
ADAPTERS: Final = {
    "lora": "Low-Rank Adaptation of every cross-attention (equation 2)",
    "textual-inversion": "the embedding of a new word, nothing else",
    "svdiff": "spectral shifts of the singular values of all weight matrices of the U-Net",
    "custom-diffusion": "keys and values of every cross-attention, and a new word",
}
EXTRACTORS: Final = {
    "inception-v3": "ImageNet, the network of FID; torch-fidelity's weights, fetched or given by --weights",
    "cytology-resnet50": "cell classes, the network of FID@Cytopathology; weights of `train features`",
    "dinov2": "self-supervised on natural images; a local folder given by --weights",
    "efficientnet-lite0": "ImageNet, from the Python registry; works offline",
}
DETECTORS: Final = {
    "faster-rcnn": "Faster R-CNN with a feature pyramid, on ResNet-50 or a small ResNet",
    "retinanet": "RetinaNet: one stage, focal loss, on ResNet-50 or a small ResNet",
    "dino": "DINO-DETR: a transformer with denoising queries, on ResNet-50 or a small ResNet",
    "comparison-detector": "Comparison Detector: Faster R-CNN that compares cells with a prototype of each class",
}
SAMPLERS: Final = {
    "ddim": "DDIM, eta 0 (the paper's)",
    "dpm++2m": "DPM-Solver++, second order, multistep",
    "unipc": "UniPC",
    "euler": "Euler",
    "lcm": "for latent consistency models: few steps, guidance near 1",
    "tcd": "for models of trajectory consistency distillation: few steps, guidance near 1",
}
FORMATS_IN: Final = {
    "coco": "a folder with annotations.json and images/, or a COCO file",
    "yolo": "a folder with images/, labels/ and data.yaml",
    "voc": "a folder with Annotations/ and JPEGImages/",
    "cric": "the CRIC Cervix release: JSON or CSV of nucleus points beside the images",
    "comparison-detector": "the Comparison Detector database: COCO or VOC, 11 classes, brought to 1024x1024",
    "folders": "one folder of cell images for each class",
}
FORMATS_OUT: Final = {"coco": "ids from 1", "yolo": "classes from 0", "voc": "one XML file an image"}
VOCABULARY: Final = CATEGORIES
BUNDLED: Final = ("foundation", "normal", "cell", "detector")
