"""Alveo U200 and U250: a Vitis RTL kernel on the cards' XRT platforms."""

from dataclasses import dataclass
from pathlib import Path

from rtl.config import Config
from rtl.interface.register_map import REGISTERS, VERSION, Access, memory_base_registers
from rtl.top import Top

from .board import Board, Command, write_gateware
from .floorplan import Dies, column_slrs, floorplan
from .interfaces import Clock, interface_marks
from .tcl import copy_scripts, settings
from .xdma_top import masters

__all__ = ["U200", "U250", "Alveo"]

KERNEL = "sat"
"""Name of the kernel, and of its top module; its only compute unit is ``sat_1``."""

ACCESS = {Access.READ_ONLY: "read-only"}
"""What the packager calls an access; all others are ``read-write``."""


@dataclass(frozen=True)
class Alveo(Board):
    """A card with an XRT platform.

    Parameters
    ----------
    name, preset
        See `Board`.
    part
        The FPGA.
    devices
        Devices of the configurations that it takes.
    platform
        Platform that the kernel is linked with.
    bank_bytes
        Memory behind each of its four controllers.
    dies
        For the floorplan.
    """

    name: str
    preset: str
    part: str
    devices: tuple[str, ...]
    platform: str
    bank_bytes: int
    dies: Dies

    image = f"{KERNEL}.xclbin"

    def write(self, config: Config, output: Path, clock_mhz: float) -> list[Path]:
        if config.device not in self.devices:
            self._refuse(config, "device", f"one of {', '.join(self.devices)}")
        if config.memory_bytes > config.channels * self.bank_bytes:
            self._refuse(config, "memory_bytes", f"at most {self.bank_bytes} for each channel")
        # The runtime allocates the channels' memory.
        top = Top(config, memory_bases=[0] * config.channels)
        interfaces = (*masters(config), "s_axi_control")
        bursts = dict.fromkeys(masters(config), config.burst_beats)
        clock = Clock("ap_clk", interfaces, "ap_rst_n")
        marks = interface_marks(top.signature.members, [clock], "interrupt", bursts)
        bases = memory_base_registers(config.channels)
        sources = write_gateware(top, KERNEL, config, output, marks, bases.values())
        texts = {
            "settings.tcl": settings(
                {
                    "sat_part": self.part,
                    "sat_top": KERNEL,
                    "sat_version": f"{VERSION >> 16}.{VERSION >> 8 & 0xFF}",
                    "sat_sources": [str(source.relative_to(output)) for source in sources],
                    "sat_masters": masters(config),
                    "sat_registers": _kernel_registers(config),
                }
            ),
            "floorplan.tcl": floorplan(config, self.dies),
            "link.cfg": self._link_configuration(config, output, clock_mhz),
        }
        for name, text in texts.items():
            (output / name).write_text(text)
        scripts = copy_scripts(("vitis_kernel.tcl",), output)
        return [*sources, *(output / name for name in texts), *scripts]

    def build_commands(self) -> list[Command]:
        return [
            Command(
                ("vivado",),
                ("-mode", "batch", "-nojournal", "-source", "vitis_kernel.tcl"),
                "Vivado",
            ),
            Command(
                ("v++",),
                (
                    "--link", "--target", "hw", "--platform", self.platform,
                    "--config", "link.cfg", "--output", self.image, f"{KERNEL}.xo",
                ),
                "Vitis",
            ),
        ]  # fmt: skip

    def flash_command(self, image: Path, device: str | None) -> Command:
        which = () if device is None else ("--device", device)
        arguments = ("program", *which, "--user", str(image.resolve()))
        return Command(("xbutil", "xrt-smi"), arguments, "XRT, the Xilinx runtime")

    def _link_configuration(self, config: Config, output: Path, clock_mhz: float) -> str:
        """Return what the linker is to connect and where, for its ``--config`` (UG1393)."""
        unit = f"{KERNEL}_1"
        slrs = {self.dies.home, *column_slrs(config, self.dies)}
        places = [
            f"sp={unit}.{master}:DDR[{channel}]" for channel, master in enumerate(masters(config))
        ]
        hooks = []
        if len(slrs) == 1:
            places.append(f"slr={unit}:SLR{self.dies.home}")
        else:
            script = (output / "floorplan.tcl").resolve()
            hooks = ["", "[vivado]", f"prop=run.impl_1.STEPS.PLACE_DESIGN.TCL.PRE={script}"]
        return "\n".join(
            [
                "# Made by boards.build from the configuration; don't edit.",
                "[connectivity]",
                f"nk={KERNEL}:1:{unit}",
                *places,
                "",
                "[clock]",
                f"freqHz={round(clock_mhz * 1e6)}:{unit}.ap_clk",
                *hooks,
                "",
            ]
        )


def _kernel_registers(config: Config) -> list[tuple[object, ...]]:
    """List the registers for the packager.

    Name, offset, bits, access, the master that a pointer belongs to, and a description. Two
    registers of a memory base are one pointer.
    """
    registers: list[tuple[object, ...]] = [
        (
            register.name,
            f"{register.offset:#05x}",
            32,
            ACCESS.get(register.access, "read-write"),
            "",
            register.doc,
        )
        for register in REGISTERS.values()
    ]
    bases = memory_base_registers(config.channels)
    for channel, master in enumerate(masters(config)):
        low = bases[f"MEMORY_BASE_{channel}_LOW"]
        name, doc = low.name.removesuffix("_LOW"), low.doc.removesuffix(", low word")
        registers.append((name, f"{low.offset:#05x}", 64, "read-write", master, doc))
    return registers


U200 = Alveo(
    name="u200",
    preset="vcu1525-1k",
    part="xcu200-fsgd2104-2-e",
    devices=("generic", "xcvu9p"),
    platform="xilinx_u200_gen3x16_xdma_2_202110_1",
    bank_bytes=16 << 30,
    dies=Dies(luts=(354_000, 159_000, 354_000), home=1),
)
"""The silicon is a VU9P's. LUTs are what the platform leaves (UG1393, Resource Availability)."""

U250 = Alveo(
    name="u250",
    preset="u250",
    part="xcu250-figd2104-2L-e",
    devices=("generic", "xcu250"),
    platform="xilinx_u250_gen3x16_xdma_4_1_202210_1",
    bank_bytes=16 << 30,
    dies=Dies(luts=(390_000, 390_000, 432_000, 432_000), home=1),
)
"""A die of the VU13P has 432,000 LUTs; what the platform takes of the lower two is estimated."""
