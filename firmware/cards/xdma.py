"""A board behind PCIe, through the character devices of AMD's XDMA driver.

The driver is that of https://github.com/Xilinx/dma_ip_drivers (PG195 describes the hardware).
``xdmaN_user`` reads and writes one 32-bit register a call, at the file's offset. ``xdmaN_h2c_0``
and ``xdmaN_c2h_0`` move memory to and from the card; a call gives up after ten seconds and returns
how far it got. ``xdmaN_events_0`` is readable once the interrupt line has risen, until it's read.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rtl.interface.axi import LITE_ADDRESS_BITS
from rtl.interface.register_map import REGISTERS

from ..errors import CardError
from .base import Card
from .identify import identify

__all__ = ["XdmaCard"]

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)

_LARGEST_TRANSFER = 8 << 20
"""Bytes of one call, which pins that much of the host's memory."""

_ALIGNMENT = 64
"""Older versions of the DMA engine want buffer and card address equal in their lowest bits."""

_EVENT_SLICE = 0.5
"""Seconds without an event after which the registers are asked whether there should be one."""

_EVENT_DELAY = 0.05
"""Seconds in which the event of an interrupt arrives that has just risen."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 50e-6, 5e-3
"""Seconds between two looks at the registers where there are no events."""

_HINTS = {
    errno.ENOENT: "is the board in the machine, with its gateware, and the driver loaded?",
    errno.ENODEV: "is the board in the machine, with its gateware, and the driver loaded?",
    errno.ENXIO: "is the board in the machine, with its gateware, and the driver loaded?",
    errno.EACCES: "root or a udev rule can give access",
    errno.EPERM: "root or a udev rule can give access",
    errno.EBUSY: "another program uses it",
    errno.ETIMEDOUT: "the board's memory doesn't answer",
    errno.EIO: "the DMA engine met an error on the board's bus; see dmesg",
}
"""What to look for, by the number of the operating system's error."""


class XdmaCard(Card):
    """A board with the XDMA gateware and driver.

    Parameters
    ----------
    number
        Of the board, as in the names of its devices.
    description
        JSON file by ``rtl.build`` if the configuration is no preset.
    directory
        Where the devices are.

    Raises
    ------
    CardError
        A device is missing or can't be opened, or the card isn't known.
    """

    timeout_unit = "seconds"
    default_timeout = 30.0

    def __init__(
        self, number: int, *, description: Path | None = None, directory: Path = Path("/dev")
    ) -> None:
        self._prefix = directory / f"xdma{number}"
        self._files: dict[str, int] = {}
        self._remarks: list[str] = []
        self._events: select.poll | None = None
        try:
            self._open("user", os.O_RDWR)
            self._open("h2c_0", os.O_WRONLY)
            self._open("c2h_0", os.O_RDONLY)
            self._open_events()
            self.config = identify(f"xdma:{number}", self.read_register, description)
        except BaseException:
            self.close()
            raise

    def read_register(self, offset: int) -> int:
        self._check_offset(offset)
        content = self._call("user", f"reading register {offset:#05x}", os.pread, 4, offset)
        if len(content) != 4:
            raise CardError(f"{self._prefix}_user gave {len(content)} bytes of a register")
        return int.from_bytes(content, "little")

    def write_register(self, offset: int, value: int) -> None:
        self._check_offset(offset)
        content = value.to_bytes(4, "little")
        count = self._call("user", f"writing register {offset:#05x}", os.pwrite, content, offset)
        if count != 4:
            raise CardError(f"{self._prefix}_user took {count} bytes of a register")

    def read_memory(self, address: int, size: int) -> NDArray[np.uint8]:
        self._check_range(address, size)
        content = _congruent(address, size)

        def read(file: int, piece: memoryview, place: int) -> int:
            return os.preadv(file, [piece], place)

        self._transfer("c2h_0", "reading", read, address, content)
        return content

    def write_memory(self, address: int, data: NDArray[np.uint8]) -> None:
        self._check_range(address, data.size)
        content = np.ascontiguousarray(data).reshape(-1)
        # The driver pins the pages as writable, which those of a file mapped read-only aren't.
        if (content.ctypes.data - address) % _ALIGNMENT or not content.flags.writeable:
            content = _congruent(address, data.size)
            content[:] = data.reshape(-1)
        self._transfer("h2c_0", "writing", os.pwrite, address, content)

    def wait_interrupt(self, timeout: float) -> bool:
        end, pause = time.monotonic() + timeout, _SHORTEST_PAUSE
        while not self._interrupt():
            left = end - time.monotonic()
            if left <= 0:
                return False
            if self._events is None:
                time.sleep(min(left, pause))
                pause = min(2 * pause, _LONGEST_PAUSE)
            # An event may be that of an interrupt which has been served already.
            elif not self._event(min(left, _EVENT_SLICE)) and self._interrupt():
                if not self._event(_EVENT_DELAY):
                    self._do_without_events("an interrupt came without an event")
                return True
        return True

    def remarks(self) -> list[str]:
        return list(self._remarks)

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()
        self._events = None

    def _open(self, device: str, flags: int) -> None:
        try:
            self._files[device] = os.open(f"{self._prefix}_{device}", flags | os.O_CLOEXEC)
        except OSError as error:
            raise self._failure(device, "opening", error) from None

    def _open_events(self) -> None:
        """Open the device of events; without it, the registers tell as well."""
        try:
            self._open("events_0", os.O_RDONLY)
        except CardError as error:
            self._do_without_events(str(error))
        else:
            self._events = select.poll()
            self._events.register(self._files["events_0"], select.POLLIN)

    def _do_without_events(self, reason: str) -> None:
        self._events = None
        remark = f"no interrupts, its registers are polled instead: {reason}"
        self._remarks.append(remark)
        _log.warning("%s: %s", self._prefix, remark)

    def _event(self, timeout: float) -> bool:
        """Wait for an event and take it; return whether there was one."""
        assert self._events is not None
        if not self._events.poll(timeout * 1000):
            return False
        self._call("events_0", "reading", os.read, 4)
        return True

    def _interrupt(self) -> bool:
        """Return whether the interrupt line is high, by the registers it is made from."""
        enabled, mask, met = (
            self.read_register(REGISTERS[name].offset)
            for name in ("GLOBAL_INTERRUPT_ENABLE", "INTERRUPT_ENABLE", "INTERRUPT_STATUS")
        )
        return bool(enabled & 1 and mask & met)

    def _check_offset(self, offset: int) -> None:
        # The driver doesn't, and would reach for whatever is there.
        if offset % 4 or not 0 <= offset < 1 << LITE_ADDRESS_BITS:
            raise CardError(
                f"register offset is {offset:#x}, must be a multiple of 4 below "
                f"{1 << LITE_ADDRESS_BITS:#x}"
            )

    def _transfer(
        self,
        device: str,
        doing: str,
        move: Callable[[int, memoryview, int], int],
        address: int,
        content: NDArray[np.uint8],
    ) -> None:
        """Move memory, in as many calls as it takes."""
        left = content.data
        while left:
            piece = left[:_LARGEST_TRANSFER]
            what = f"{doing} {len(piece)} bytes at {address:#x}"
            count = self._call(device, what, move, piece, address)
            if count <= 0:
                raise CardError(f"{self._prefix}_{device}: {what} moved nothing")
            left = left[count:]
            address += count

    def _call(
        self, device: str, doing: str, function: Callable[..., _Result], *arguments: object
    ) -> _Result:
        """Call a function of the operating system on a device; it repeats what a signal ended."""
        try:
            return function(self._files[device], *arguments)
        except KeyError:
            raise CardError(f"{self._prefix}: the card is closed") from None
        except OSError as error:
            raise self._failure(device, doing, error) from None

    def _failure(self, device: str, doing: str, error: OSError) -> CardError:
        hint = _HINTS.get(error.errno or 0)
        return CardError(
            f"{self._prefix}_{device}: {doing}: {error.strerror}" + (f"; {hint}" if hint else "")
        )


def _congruent(address: int, size: int) -> NDArray[np.uint8]:
    """Return a buffer whose address has the lowest bits of that on the card."""
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = (address - room.ctypes.data) % _ALIGNMENT
    return room[start : start + size]
