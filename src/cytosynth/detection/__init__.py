"""Cell detectors behind one small interface: train on COCO, predict, save, load; and COCO evaluation."""
