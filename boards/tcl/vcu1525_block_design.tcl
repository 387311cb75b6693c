# Block design of the VCU1525: PCIe DMA engine, accelerator, memory controllers.
#
#     xdma --M_AXI------> sat (addresses) --> host_paths --+--> memory_<n> --> ddr4_<n>
#       |                 sat m_axi_<n> -------------------'
#       '--M_AXI_LITE---> registers --> sat (registers), ddr4_<n> (error correction)
#
# The accelerator and the host see memory at the same addresses: controller after controller, each
# in a window of its own. Clocks: axi_aclk of the DMA engine (250 MHz), the accelerator's, made from
# it, and one of each memory controller (300 MHz). The interconnects cross between them.

proc make_cell {name ip args} {
    set cell [create_bd_cell -type ip -vlnv xilinx.com:ip:$ip $name]
    if {[llength $args]} {
        set_property -dict $args $cell
    }
}

proc connect {source args} {
    foreach sink $args {
        connect_bd_net [get_bd_pins $source] [get_bd_pins $sink]
    }
}

proc connect_bus {master slave} {
    connect_bd_intf_net [get_bd_intf_pins $master] [get_bd_intf_pins $slave]
}

# Connects a pin to what the board has, with the parameters that the board's files preset for it.
proc connect_board {interface pin} {
    apply_board_connection -board_interface $interface -ip_intf $pin -diagram card
}

proc map_memory {space segment offset range} {
    assign_bd_address -offset [format 0x%llX $offset] -range [format 0x%llX $range] \
        -target_address_space [get_bd_addr_spaces $space] [get_bd_addr_segs $segment]
}

create_bd_design card

# PCIe.
make_cell pcie_clock util_ds_buf
connect_board pcie_refclk pcie_clock/CLK_IN_D
make_cell xdma xdma
connect_board pci_express_x16 xdma/pcie_mgt
connect_board pcie_perstn xdma/RST.sys_rst_n
set_property -dict {
    CONFIG.pl_link_cap_max_link_width X16
    CONFIG.pl_link_cap_max_link_speed 8.0_GT/s
    CONFIG.xdma_axi_intf_mm AXI_Memory_Mapped
    CONFIG.axi_data_width 512_bit
    CONFIG.axisten_freq 250
    CONFIG.xdma_rnum_chnl 4
    CONFIG.xdma_wnum_chnl 4
    CONFIG.xdma_num_usr_irq 1
    CONFIG.axilite_master_en true
    CONFIG.axilite_master_size 1
    CONFIG.axilite_master_scale Megabytes
} [get_bd_cells xdma]
connect pcie_clock/IBUF_DS_ODIV2 xdma/sys_clk
connect pcie_clock/IBUF_OUT xdma/sys_clk_gt

# The accelerator, its clock and its reset.
create_bd_cell -type module -reference $sat_top sat
make_cell clock clk_wiz \
    CONFIG.PRIM_SOURCE No_buffer \
    CONFIG.PRIM_IN_FREQ 250 \
    CONFIG.CLKOUT1_REQUESTED_OUT_FREQ $sat_clock_mhz \
    CONFIG.RESET_TYPE ACTIVE_LOW
make_cell reset proc_sys_reset
connect xdma/axi_aclk clock/clk_in1 sat/host_clk
connect xdma/axi_aresetn clock/resetn reset/ext_reset_in
connect clock/locked reset/dcm_locked
connect clock/clk_out1 reset/slowest_sync_clk sat/ap_clk
connect reset/peripheral_aresetn sat/ap_rst_n
connect sat/interrupt xdma/usr_irq_req

# From the host to memory and registers.
connect_bus xdma/M_AXI sat/s_axi_host
make_cell host_paths smartconnect \
    CONFIG.NUM_SI 1 CONFIG.NUM_MI $sat_channels CONFIG.NUM_CLKS 1
connect xdma/axi_aclk host_paths/aclk
connect xdma/axi_aresetn host_paths/aresetn
connect_bus sat/m_axi_host host_paths/S00_AXI

make_cell registers smartconnect \
    CONFIG.NUM_SI 1 \
    CONFIG.NUM_MI [expr {1 + $sat_channels}] \
    CONFIG.NUM_CLKS [expr {2 + $sat_channels}]
connect xdma/axi_aclk registers/aclk
connect clock/clk_out1 registers/aclk1
connect xdma/axi_aresetn registers/aresetn
connect_bus xdma/M_AXI_LITE registers/S00_AXI
connect_bus registers/M00_AXI sat/s_axi_control

# Memory: a controller for each channel, which accelerator and host share.
make_cell low xlconstant CONFIG.CONST_WIDTH 1 CONFIG.CONST_VAL 0
for {set n 0} {$n < $sat_channels} {incr n} {
    make_cell ddr4_$n ddr4
    connect_board ddr4_sdram_c$n ddr4_$n/C0_DDR4
    connect_board default_300mhz_clk$n ddr4_$n/C0_SYS_CLK
    connect low/dout ddr4_$n/sys_rst

    make_cell ddr4_reset_$n proc_sys_reset
    connect ddr4_$n/c0_ddr4_ui_clk ddr4_reset_$n/slowest_sync_clk
    connect ddr4_$n/c0_ddr4_ui_clk_sync_rst ddr4_reset_$n/ext_reset_in
    connect ddr4_reset_$n/peripheral_aresetn ddr4_$n/c0_ddr4_aresetn

    make_cell memory_$n smartconnect CONFIG.NUM_SI 2 CONFIG.NUM_MI 1 CONFIG.NUM_CLKS 3
    connect clock/clk_out1 memory_$n/aclk
    connect xdma/axi_aclk memory_$n/aclk1
    connect ddr4_$n/c0_ddr4_ui_clk memory_$n/aclk2
    connect xdma/axi_aresetn memory_$n/aresetn
    connect_bus sat/[lindex $sat_masters $n] memory_$n/S00_AXI
    connect_bus host_paths/M0${n}_AXI memory_$n/S01_AXI
    connect_bus memory_$n/M00_AXI ddr4_$n/C0_DDR4_S_AXI

    connect ddr4_$n/c0_ddr4_ui_clk registers/aclk[expr {2 + $n}]
    connect_bus registers/M0[expr {1 + $n}]_AXI ddr4_$n/C0_DDR4_S_AXI_CTRL
}

# Addresses.
map_memory xdma/M_AXI sat/s_axi_host/reg0 0 [expr {$sat_channels * $sat_window_bytes}]
map_memory xdma/M_AXI_LITE sat/s_axi_control/reg0 0 $sat_register_bytes
for {set n 0} {$n < $sat_channels} {incr n} {
    set window [expr {$n * $sat_window_bytes}]
    foreach space [list sat/[lindex $sat_masters $n] sat/m_axi_host] {
        map_memory $space ddr4_$n/C0_DDR4_MEMORY_MAP/C0_DDR4_ADDRESS_BLOCK \
            $window $sat_window_bytes
    }
    map_memory xdma/M_AXI_LITE ddr4_$n/C0_DDR4_MEMORY_MAP_CTRL/C0_REG \
        [expr {(1 + $n) * 0x10000}] 0x10000
}

validate_bd_design
save_bd_design
