"""Networks with ImageNet weights that need no model hub: the basis of detectors, classifiers and distances."""
