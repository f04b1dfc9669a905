"""Latents of generated fields, for `train foundation --part decoder --set generated=FILE`.

    python examples/generated_latents.py FILE.safetensors [--count 48] [--normal bundled] [--fast bundled] [--seed 1000]

Several files are put together by giving them after --also. Their seeds should not be those of the images that will
be measured.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cytosynth.foundation.scratch.generated import KEY
from cytosynth.io.progress import meter
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings


def main() -> None:
    """Generate and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--foundation", default="bundled")
    parser.add_argument("--normal", default="bundled", help="adapter; of the liquid preparation: bundled/normal_liquid")
    parser.add_argument("--fast", help="distilled weights; four steps and no guidance")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="files of further latents")
    given = parser.parse_args()
    generator = NormalImageGenerator(given.foundation, given.normal, precision="bf16", distilled=given.fast)
    few = {"sampler": "lcm", "steps": 4, "guidance_scale": 1.0} if given.fast else {}
    settings = GenerateSettings.model_validate({"size": given.side, **few})
    made = [load_file(path)[KEY].float() for path in given.also]
    with meter("generating latents", given.count) as bar:
        for index in range(given.count):
            made.append(generator.latents([(given.seed, index)], settings))
            bar.advance()
    save_file({KEY: torch.cat(made).half()}, given.file)
    print(f"{given.file}: {sum(map(len, made))} latents")


if __name__ == "__main__":
    main()
