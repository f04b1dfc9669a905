"""Networks with ImageNet weights that need no model hub: what detectors, classifiers and distances stand on."""
