"""The frozen Stable Diffusion: loading, the noise objective, sampling, and the training of the bundled one."""
