# Loads a bitstream into the FPGA of a VCU1525 through its JTAG cable, until power is off.
# Usage: vivado -mode batch -source vcu1525_program.tcl -tclargs BITSTREAM ?TARGET?

set bitstream [lindex $argv 0]
set target [expr {[llength $argv] > 1 ? [lindex $argv 1] : "*"}]

open_hw_manager
connect_hw_server
set targets [get_hw_targets -quiet $target]
if {[llength $targets] != 1} {
    puts "ERROR: [llength $targets] JTAG cables match '$target', must be one; there are:\
        [get_hw_targets -quiet *]"
    exit 1
}
open_hw_target $targets
set device [lindex [get_hw_devices -quiet xcvu9p_*] 0]
if {$device eq ""} {
    puts "ERROR: no VU9P on '$targets', but: [get_hw_devices -quiet *]"
    exit 1
}
current_hw_device $device
set_property PROGRAM.FILE $bitstream $device
program_hw_devices $device
puts "loaded; the host must look for PCIe devices again, or restart without powering off"
