"""DINO (Zhang et al. 2022, arXiv 2203.03605, one of the paper's detectors) on transformers' Deformable DETR layers."""

from .network import ARCHITECTURE, Dino, build

__all__ = ["ARCHITECTURE", "Dino", "build"]
