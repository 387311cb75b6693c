# Stand-ins for the commands of Vivado, Vitis' packager and the hardware manager: each checks its
# options, writes itself and its arguments to a file, and returns what a script goes on with.
# Usage: standins.tcl RECORD ANSWERS SCRIPT ?ARGUMENT ...?
# ANSWERS is a Tcl dictionary, from a command with its arguments to what it returns. Other commands
# return their first or last argument, a path of all of them, their own name, or nothing.

set record [open [lindex $argv 0] w]
set answers [lindex $argv 1]
set script [lindex $argv 2]
set argv [lrange $argv 3 end]
set argc [llength $argv]

# Defines the command `name` with options that are `flags` or have a value.
proc standin {name flags valued result} {
    proc $name args "record $name \$args {$flags} {$valued}; answer $name \$args $result"
}

# Writes a call, and refuses options that the command doesn't have.
proc record {name words flags valued} {
    for {set n 0} {$n < [llength $words]} {incr n} {
        set word [lindex $words $n]
        if {$word in $valued} {
            incr n
            if {$n == [llength $words]} {
                error "$name: option $word has no value"
            }
        } elseif {[regexp {^-[a-z]} $word] && $word ni $flags} {
            error "$name: no option $word; there are: $flags $valued"
        }
    }
    puts -nonewline $::record [join [list $name {*}$words] \x1f]\x1e
}

proc answer {name words result} {
    if {[dict exists $::answers [list $name {*}$words]]} {
        return [dict get $::answers [list $name {*}$words]]
    }
    switch $result {
        first {return [lindex $words 0]}
        last {return [lindex $words end]}
        path {return [join [lreverse $words] /]}
        name {return $name}
        default {return ""}
    }
}

# Project.
standin create_project -force {-part} none
standin current_project {} {} name
standin current_fileset {} {} name
standin get_filesets {} {} last
standin get_board_parts -quiet {} none
standin add_files -norecurse {-fileset} none
standin get_files {} {-of_objects} last
standin update_compile_order {} {-fileset} none
standin make_wrapper -top {-files} name
standin launch_runs {} {-to_step -jobs} none
standin wait_on_run {} {} none
standin get_runs {} {} last
standin open_run {} {} none
standin report_timing_summary {} {-file} none
standin report_utilization -hierarchical {-file} none
standin close_project {} {} none
standin get_property {} {} none
standin set_property {} {-dict} none

# Block design.
standin create_bd_design {} {} none
standin create_bd_cell {} {-type -vlnv -reference} last
standin connect_bd_net {} {} none
standin connect_bd_intf_net {} {} none
standin apply_board_connection {} {-board_interface -ip_intf -diagram} none
standin assign_bd_address {} {-offset -range -target_address_space} none
standin get_bd_cells {} {} last
standin get_bd_pins {} {} last
standin get_bd_intf_pins {} {} last
standin get_bd_addr_spaces {} {} last
standin get_bd_addr_segs {} {} last
standin validate_bd_design {} {} none
standin save_bd_design {} {} none

# Constraints.
standin current_design {} {} name
standin get_cells -hierarchical {-filter} last
standin set_false_path {} {-from -to} none

# Packager.
namespace eval ipx {}
standin ipx::package_project {-import_files -force} \
    {-root_dir -vendor -library -taxonomy -set_current} none
standin ipx::current_core {} {} name
standin ipx::associate_bus_interfaces {} {-busif -clock -reset} none
standin ipx::get_bus_interfaces {} {-of_objects} first
standin ipx::get_memory_maps -quiet {-of_objects} none
standin ipx::add_memory_map {} {} first
standin ipx::get_address_blocks -quiet {-of_objects} none
standin ipx::add_address_block {} {} path
standin ipx::add_register {} {} first
standin ipx::add_register_parameter {} {} path
standin ipx::create_xgui_files {} {} none
standin ipx::update_checksums {} {} none
standin ipx::check_integrity -kernel {} none
standin ipx::save_core {} {} none
standin package_xo -force \
    {-xo_path -kernel_name -ctrl_protocol -ip_directory -output_kernel_xml} none
# Hardware manager.
standin open_hw_manager {} {} none
standin connect_hw_server {} {} none
standin get_hw_targets -quiet {} none
standin open_hw_target {} {} none
standin get_hw_devices -quiet {} none
standin current_hw_device {} {} none
standin program_hw_devices {} {} none

source $script
close $record
