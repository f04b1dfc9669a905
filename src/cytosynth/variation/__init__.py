"""Variations between centres, scanners and days: stain, optics and artefacts, in physical units.

A variation is one file with a `VARIATION` and one line in `registry.VARIATIONS`. It takes a `View` (pixels, boxes,
micrometres per pixel), an amount and a random generator. numpy, scipy and Pillow suffice; nothing here imports torch.
"""
