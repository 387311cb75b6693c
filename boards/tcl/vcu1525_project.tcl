# Vivado project of the VCU1525: from Verilog and block design to a bitstream.
# Usage: vivado -mode batch -source vcu1525_project.tcl

set here [file dirname [file normalize [info script]]]
source [file join $here settings.tcl]

# The board files are those of Xilinx's board store; any revision has the interfaces used here.
set board_part [lindex [lsort -dictionary [get_board_parts -quiet *:vcu1525:part0:*]] end]
if {$board_part eq ""} {
    puts "ERROR: no board files of the VCU1525; install them with\
        'xhub::install \[xhub::get_xitems *:vcu1525:*\]' in Vivado"
    exit 1
}

create_project -force sat [file join $here project] -part $sat_part
set_property board_part $board_part [current_project]
foreach source $sat_sources {
    add_files -norecurse [file join $here $source]
}
add_files -fileset constrs_1 -norecurse [file join $here constraints.xdc]
add_files -fileset constrs_1 -norecurse [file join $here floorplan.xdc]
# Both name cells that are there only once all is linked.
set_property used_in_synthesis false [get_files -of_objects [get_filesets constrs_1]]
update_compile_order -fileset sources_1

source [file join $here vcu1525_block_design.tcl]
add_files -norecurse [make_wrapper -files [get_files card.bd] -top]
set_property top card_wrapper [current_fileset]
update_compile_order -fileset sources_1

proc finish {run} {
    wait_on_run $run
    if {[get_property PROGRESS [get_runs $run]] ne "100%"} {
        puts "ERROR: $run failed: [get_property STATUS [get_runs $run]]"
        exit 1
    }
}

launch_runs synth_1 -jobs $sat_jobs
finish synth_1
set_property strategy Performance_ExplorePostRoutePhysOpt [get_runs impl_1]
launch_runs impl_1 -to_step write_bitstream -jobs $sat_jobs
finish impl_1

open_run impl_1
report_timing_summary -file [file join $here timing.txt]
report_utilization -hierarchical -file [file join $here utilization.txt]
file copy -force [file join [get_property DIRECTORY [get_runs impl_1]] card_wrapper.bit] \
    [file join $here sat.bit]

set slack [get_property STATS.WNS [get_runs impl_1]]
if {$slack < 0} {
    puts "ERROR: timing isn't met at $sat_clock_mhz MHz, worst slack $slack ns; see timing.txt,\
        and build with a lower --clock"
    exit 1
}
puts "timing is met at $sat_clock_mhz MHz, worst slack $slack ns"
