"""The `[settings]` of an NPU profile, checked field by field.

Rates are per cycle of the NPU's clock and, unless it says otherwise, per core: the cores work side
by side on one operation and share both memories.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from actcc.activations.functions import NAMES
from actcc.latency_models import Profile, checked_settings

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

# What an operator is to the device, beside the element-wise classes that the profile defines.
BuiltInClass = Literal[
    "convolution",  # multiply-accumulates with a plane
    "matrix",  # multiply-accumulates without one
    "pooling",
    "clamp",  # fuses into the operation before it for free
    "lookup",  # a table in parallel with the operation before it
    "free",  # the same elements under another name or shape
    "part",  # read where it lies
    "join",  # written where it belongs by the operations before it
]
BUILT_IN_CLASSES = frozenset(get_args(BuiltInClass))


class Section(BaseModel):
    """A table of the profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Sram(Section):
    """Memory on the chip.

    Attributes:
        bytes: for feature maps; what does not fit lies in the memory outside.
        bytes_per_cycle: read and written together, all cores.
        burst_bytes: that it moves at once; shorter runs leave the rest unused.
        latency_cycles: from a request to the first byte, and to the end of what is written.
        holds_interface: whether the inputs and outputs of the network lie in it too.
        spills: whether feature maps that it does not hold lie outside; where nothing can be written
            outside, the toolchain has to make do with it.
    """

    bytes: Count
    bytes_per_cycle: Rate
    burst_bytes: Count = 1
    latency_cycles: Amount = 0.0
    holds_interface: bool = True
    spills: bool = True

    @property
    def write_latency_cycles(self) -> float:
        """From a request to the end of what is written."""
        return self.latency_cycles


class Dram(Section):
    """Memory outside the chip, DRAM or flash: weights, tables, and what the SRAM does not hold.

    Attributes:
        bytes_per_cycle: read and written together, all cores.
        latency_cycles: from a request to the first byte.
        burst_bytes: that it moves at once; shorter runs leave the rest unused.
        write_latency_cycles: from a request to the end of what is written.
    """

    bytes_per_cycle: Rate
    latency_cycles: Amount
    burst_bytes: Count = 1
    write_latency_cycles: Amount = 0.0


class MacRates(Section):
    """Multiply-accumulates per cycle by class of operation."""

    convolution: Rate
    depthwise: Rate
    matrix: Rate


class Blocks(Section):
    """How work is cut up to fill the array of multipliers.

    Attributes:
        rows, columns: positions of the plane that are computed together.
        output_channels: channels that are computed together.
        input_channels: channels of one step of a sum.
        narrow_input_channels, narrow_kernel: the same for the mode that takes several elements of
            the kernel in one step, for few input channels.
        depthwise_kernel: elements of a depthwise kernel in one step.
        least_positions: positions that a step takes even where there are fewer.
        accumulators: sums that are held at once; they bound a block of the output.
        stored_channels: tensors are stored in bricks of so many channels.
        largest: rows, columns and channels of the largest block.
        buffer_bytes: for the input and the sums of two blocks.
        input_granule_bytes, sum_granule_bytes: they are handed out in pieces of so many bytes.
        in_flight: blocks whose commands overlap.
        interface_bytes: of one core's burst to a tensor in the host's layout.
    """

    rows: Count
    columns: Count
    output_channels: Count
    input_channels: Count
    narrow_input_channels: Count
    narrow_kernel: Count
    depthwise_kernel: Count
    least_positions: Count
    accumulators: Count
    stored_channels: Count
    largest: tuple[Count, Count, Count] = (32, 64, 128)
    buffer_bytes: Count = 1 << 40
    input_granule_bytes: Count = 1
    sum_granule_bytes: Count = 1
    in_flight: Count = 4
    interface_bytes: Count = 16


class Weights(Section):
    """Weights in the memory outside the chip.

    Attributes:
        bytes_per_weight: as stored, compressed.
        bytes_per_filler: of a zero that fills up a step of a sum, compressed.
        bytes_per_channel: bias and scale of one output channel.
    """

    bytes_per_weight: Rate
    bytes_per_channel: Amount
    bytes_per_filler: Amount = 0.0


class Pooling(Section):
    """Pooling windows: elements compared or summed per cycle, and the least counted for one."""

    elements_per_cycle: Rate
    least_window: Count


class Lookup(Section):
    """Activations by table.

    Attributes:
        fused_elements_per_cycle: in parallel with the operation that computes its input.
        separate_elements_per_cycle: as a pass over a tensor in memory.
        table_bytes: loaded from outside the chip before the operation starts, while the one before
            it runs.
        softmax_row_cycles: of Softmax for each row, beside its elements.
    """

    fused_elements_per_cycle: Rate
    separate_elements_per_cycle: Rate
    table_bytes: Amount
    softmax_row_cycles: Amount = 0.0


class Host(Section):
    """The CPU that runs what the NPU cannot; per cycle of the NPU's clock, all together.

    Attributes:
        cycles_per_call: to hand over and to take back.
        bytes_per_cycle: transfer of tensors that the NPU writes or reads.
    """

    cycles_per_call: Amount
    bytes_per_cycle: Rate
    elements_per_cycle: Rate
    macs_per_cycle: Rate


class ActivationRule(Section):
    """What the toolchain makes of an activation.

    Attributes:
        unit: "clamp" and "lookup" as the classes of operators; "passes" are `passes`, ONNX
            operators that the front end writes in its place, each a pass over the tensor.
        spelling: "any" is recognised however it is written; "operator" only where it is one node,
            and otherwise each of its nodes is priced as it stands.
    """

    unit: Literal["clamp", "lookup", "passes"]
    spelling: Literal["any", "operator"] = "any"
    passes: tuple[str, ...] = ()


class NpuSettings(Section):
    """Everything that a profile says about an NPU and its toolchain.

    Attributes:
        clock_mhz: of the NPU.
        cores: that share one operation.
        bytes_per_element: of feature maps; the NPU runs every tensor in this format.
        output_elements_per_cycle: results that leave the multipliers.
        elements_per_cycle: rates of element-wise classes of operators, by class.
        operators: ONNX operators that the NPU runs, with their class.
        fusing: classes whose results an activation takes without a pass over memory.
        free_permutations: of Transpose, which disappear in the device's own layout.
        activations: by name, see `actcc.activations`.
    """

    clock_mhz: Rate
    cores: Count
    bytes_per_element: Rate
    sram: Sram
    dram: Dram
    macs_per_cycle: MacRates
    blocks: Blocks
    weights: Weights
    output_elements_per_cycle: Rate
    pooling: Pooling
    lookup: Lookup
    elements_per_cycle: Mapping[str, Rate]
    operators: Mapping[str, str]
    fusing: frozenset[str]
    free_permutations: tuple[tuple[int, ...], ...]
    activations: Mapping[str, ActivationRule]
    host: Host

    @model_validator(mode="after")
    def _refers_to_what_is_there(self) -> NpuSettings:
        known = BUILT_IN_CLASSES | set(self.elements_per_cycle)
        for place, named in (
            *((f"operators.{op}", name) for op, name in self.operators.items()),
            *(("fusing", name) for name in sorted(self.fusing)),
        ):
            if named not in known:
                raise ValueError(
                    f"'{place}' names the class '{named}'; known: {', '.join(sorted(known))}"
                )
        for name, rule in self.activations.items():
            self._check_rule(name, rule)
        return self

    def _check_rule(self, name: str, rule: ActivationRule) -> None:
        if name not in NAMES:
            raise ValueError(f"there is no activation '{name}'; known: {', '.join(NAMES)}")
        if (rule.unit == "passes") != bool(rule.passes):
            raise ValueError(f"'activations.{name}': 'passes' goes with unit = \"passes\" only")
        for op in rule.passes:
            if op not in self.operators:
                raise ValueError(f"'activations.{name}' needs the operator '{op}' in 'operators'")


def npu_settings(profile: Profile) -> NpuSettings:
    """The checked settings of a profile.

    Raises:
        TargetError: a field is missing, unknown, or does not fit.
    """
    return checked_settings(NpuSettings, profile)
