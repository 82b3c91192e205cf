"""The training loss: task-aligned assignment, BCE on scores, CIoU and distribution focal loss."""

import math

import torch
from network import BINS, Detector
from scenes import CLASSES, Scenes
from torch import Tensor
from torch.nn import functional

TOP_ANCHORS = 10


def complete_iou(boxes: Tensor, truth: Tensor) -> Tensor:
    """Return CIoU [...] of corner boxes [..., 4] (Zheng et al. 2020, section 4)."""
    low = torch.maximum(boxes[..., :2], truth[..., :2])
    high = torch.minimum(boxes[..., 2:], truth[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    size, true_size = boxes[..., 2:] - boxes[..., :2], truth[..., 2:] - truth[..., :2]
    union = size.prod(-1) + true_size.prod(-1) - shared + 1e-7
    outer_low = torch.minimum(boxes[..., :2], truth[..., :2])
    outer_high = torch.maximum(boxes[..., 2:], truth[..., 2:])
    diagonal = ((outer_high - outer_low) ** 2).sum(-1) + 1e-7
    centres = boxes[..., :2] + boxes[..., 2:] - truth[..., :2] - truth[..., 2:]
    iou = shared / union
    angles = [torch.atan(s[..., 0] / (s[..., 1] + 1e-7)) for s in (size, true_size)]
    shape = (angles[1] - angles[0]) ** 2 * 4 / math.pi**2
    with torch.no_grad():
        weight = shape / (1 - iou + shape + 1e-7)
    return iou - (centres**2).sum(-1) / 4 / diagonal - weight * shape


@torch.no_grad()
def assign(boxes: Tensor, scores: Tensor, anchors: Tensor, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Return which garment each anchor answers for, and how well (Feng et al. 2021, TOOD).

    ``boxes`` is [b, a, 4], ``scores`` [b, a, 10] in [0, 1], ``anchors`` [a, 2]. Returns indices
    [b, a] into the six garments, and the target score [b, a]: 0 for anchors of the background.
    """
    truth = scenes.boxes[:, :, None]
    inside = (
        ((anchors - truth[..., :2]) > 0).all(-1) & ((truth[..., 2:] - anchors) > 0).all(-1)
    ) & scenes.present[..., None]
    iou = complete_iou(boxes[:, None], truth).clamp(min=0) * inside
    index = scenes.labels[:, None, :].expand(-1, scores.shape[1], -1)
    right = scores.gather(2, index).transpose(1, 2)
    alignment = right.sqrt() * iou**6
    best = (alignment + 1e-9 * inside).topk(TOP_ANCHORS, 2).indices
    taken = torch.zeros_like(inside).scatter_(2, best, True) & inside
    # An anchor that several garments want goes to the one it overlaps most.
    owner = (iou + 1e-6) * taken
    garment = owner.argmax(1)
    only = functional.one_hot(garment, owner.shape[1]).transpose(1, 2).bool() & taken
    alignment = alignment * only
    strongest = alignment.amax(2, keepdim=True)
    target = alignment * (iou * only).amax(2, keepdim=True) / (strongest + 1e-9)
    return garment, target.amax(1)


def detection_loss(model: Detector, sides: Tensor, logits: Tensor, scenes: Scenes) -> Tensor:
    """Return the scalar loss of a batch, weighted as YOLOv8 does (7.5, 0.5 and 1.5)."""
    boxes = model.corners(sides).transpose(1, 2)
    logits = logits.transpose(1, 2)
    anchors = model.anchors[0].T
    garment, quality = assign(boxes, logits.sigmoid(), anchors, scenes)
    labels = scenes.labels.gather(1, garment)
    wanted = functional.one_hot(labels, len(CLASSES)) * quality[..., None]
    total = quality.sum().clamp(min=1)
    classified = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")

    rows = quality > 0
    weight = quality[rows]
    truth = scenes.boxes.gather(1, garment[..., None].expand(-1, -1, 4))[rows]
    located = (weight * (1 - complete_iou(boxes[rows], truth))).sum()

    points = anchors.expand(len(garment), -1, -1)[rows]
    strides = model.strides[0, 0].expand(len(garment), -1)[rows][:, None]
    distances = torch.cat([points - truth[:, :2], truth[:, 2:] - points], 1) / strides
    distances = distances.clamp(0, BINS - 1.01).flatten()
    below = distances.floor().long()
    logs = sides.transpose(1, 2)[rows].reshape(-1, BINS).log_softmax(1)
    share = (distances - below)[:, None]
    pair = torch.cat([1 - share, share], 1) * logs.gather(1, torch.stack([below, below + 1], 1))
    distributed = -(weight * pair.sum(1).reshape(-1, 4).mean(1)).sum()
    return (7.5 * located + 0.5 * classified + 1.5 * distributed) / total
