"""Detectors: from a model's outputs to boxes, and from boxes to COCO's average precision."""
