"""Average precision of detectors (COCO), and their failures."""
