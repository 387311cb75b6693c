"""N-dimensional strided DMA descriptors."""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

__all__ = ["DIMENSIONS", "Descriptor"]

DIMENSIONS = 4


class Descriptor(data.Struct):
    """A nest of four loops over whole AXI beats.

    Dimension 0 is contiguous: ``counts[0]`` beats that follow each other in memory. Dimension
    ``i > 0`` repeats what is inside it ``counts[i]`` times, ``strides[i - 1]`` bytes apart.
    Every count is at least 1; the address and the strides are multiples of a beat.
    """

    address: unsigned(64)
    counts: data.ArrayLayout(unsigned(16), DIMENSIONS)
    strides: data.ArrayLayout(signed(32), DIMENSIONS - 1)
