"""All networks that tests and benchmarks build as frameworks export them, small and at full size.

`python tests/exported_networks.py NAME FILE.onnx [--full-size]` writes one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import onnx
from convnext_network import TINY, convnext_network
from mobile_networks import (
    EFFICIENTNET_B0,
    MOBILENET_V2,
    MOBILENET_V3,
    SMALL_MOBILE,
    mobile_network,
)
from structured_networks import BLOCKS, FULL_SIZE, network_of_blocks
from yolo_networks import YOLO_NANO, yolov5_network, yolox_network

Make = Callable[[], onnx.ModelProto]
_PIXELS, _CLASSES = 224, 1000

SMALL_NETWORKS: Mapping[str, Make] = MappingProxyType(
    {
        **{block: partial(network_of_blocks, block) for block in BLOCKS},
        **{name: partial(mobile_network, SMALL_MOBILE[name], 8, 24, 32) for name in SMALL_MOBILE},
        "mobilenet_v3_last": partial(
            mobile_network, SMALL_MOBILE["mobilenet_v3"], 8, 24, 32, channels_last=True
        ),
        "convnext": convnext_network,
        "convnext_first": partial(convnext_network, scale_first=True),
        "yolov5": yolov5_network,
        "yolox": yolox_network,
    }
)
FULL_SIZE_NETWORKS: Mapping[str, Make] = MappingProxyType(
    {
        **{block: partial(network_of_blocks, block, FULL_SIZE[block], _PIXELS) for block in BLOCKS},
        "mobilenet_v2": partial(mobile_network, MOBILENET_V2, 32, 1280, _PIXELS, _CLASSES),
        "mobilenet_v3": partial(mobile_network, MOBILENET_V3, 16, 576, _PIXELS, _CLASSES),
        "efficientnet": partial(mobile_network, EFFICIENTNET_B0, 32, 1280, _PIXELS, _CLASSES),
        "mobilenet_v3_last": partial(
            mobile_network, MOBILENET_V3, 16, 576, _PIXELS, _CLASSES, channels_last=True
        ),
        "convnext": partial(convnext_network, TINY, _PIXELS, _CLASSES),
        "convnext_first": partial(convnext_network, TINY, _PIXELS, _CLASSES, scale_first=True),
        "yolov5": partial(yolov5_network, YOLO_NANO),
        "yolox": partial(yolox_network, YOLO_NANO),
    }
)


def main() -> None:
    """Write one network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SMALL_NETWORKS)
    parser.add_argument("file")
    parser.add_argument("--full-size", action="store_true")
    options = parser.parse_args()
    networks = FULL_SIZE_NETWORKS if options.full_size else SMALL_NETWORKS
    onnx.save(networks[options.name](), options.file)


if __name__ == "__main__":
    main()
