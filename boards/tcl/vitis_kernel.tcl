# Packages the accelerator as a Vitis RTL kernel (UG1393), which the host controls by its registers.
# Usage: vivado -mode batch -source vitis_kernel.tcl

set here [file dirname [file normalize [info script]]]
source [file join $here settings.tcl]

create_project -force package [file join $here package] -part $sat_part
foreach source $sat_sources {
    add_files -norecurse [file join $here $source]
}
set_property top $sat_top [current_fileset]
update_compile_order -fileset sources_1

set ip [file join $here ip]
file delete -force $ip
ipx::package_project -root_dir $ip -vendor sat -library kernel -taxonomy /KernelIP \
    -import_files -force -set_current true
set core [ipx::current_core]
set_property name $sat_top $core
set_property version $sat_version $core

# Interfaces, all with one clock.
foreach interface [concat $sat_masters s_axi_control] {
    ipx::associate_bus_interfaces -busif $interface -clock ap_clk $core
}
ipx::associate_bus_interfaces -clock ap_clk -reset ap_rst_n $core

# Registers. Those of 64 bits are pointers: they belong to the master that follows them.
set map [ipx::get_memory_maps -quiet s_axi_control -of_objects $core]
if {$map eq ""} {
    set map [ipx::add_memory_map s_axi_control $core]
    set_property slave_memory_map_ref s_axi_control \
        [ipx::get_bus_interfaces s_axi_control -of_objects $core]
}
set block [lindex [ipx::get_address_blocks -quiet -of_objects $map] 0]
if {$block eq ""} {
    set block [ipx::add_address_block reg0 $map]
}
foreach register $sat_registers {
    lassign $register name offset size access master description
    set entry [ipx::add_register $name $block]
    set_property address_offset $offset $entry
    set_property size $size $entry
    set_property access $access $entry
    set_property description $description $entry
    if {$master ne ""} {
        set_property value $master [ipx::add_register_parameter ASSOCIATED_BUSIF $entry]
    }
}

set_property sdx_kernel true $core
set_property sdx_kernel_type rtl $core
set_property vitis_drc {ctrl_protocol user_managed} $core
set_property ipi_drc {ignore_freq_hz true} $core
set_property supported_families {} $core
set_property auto_family_support_level level_2 $core
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity -kernel $core
ipx::save_core $core

package_xo -force -xo_path [file join $here $sat_top.xo] -kernel_name $sat_top \
    -ctrl_protocol user_managed -ip_directory $ip \
    -output_kernel_xml [file join $here kernel.xml]
close_project
