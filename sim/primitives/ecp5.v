// Models of the ECP5 primitives that rtl/ places, for simulators and for proofs.
//
// Each does what the gateware makes use of, and refuses other attributes and controls, so that it
// never does less than on the FPGA without a word. Yosys must defer elaboration (read_verilog -defer).

// Yosys knows $fatal in elaboration only, where Verilator takes it for a warning.
`ifdef SYNTHESIS
`define REFUSE(message) $fatal(1, message);
`else
`define REFUSE(message) initial $fatal(1, message);
`endif

// Multiplier (FPGA-TN-02205) of unsigned factors, with registers for these and for the product, none
// of which is reset or held.
module MULT18X18D #(
    parameter REG_INPUTA_CLK = "NONE",
    parameter REG_INPUTB_CLK = "NONE",
    parameter REG_PIPELINE_CLK = "NONE",
    parameter REG_OUTPUT_CLK = "NONE",
    parameter REG_INPUTA_CE = "CE0",
    parameter REG_INPUTB_CE = "CE0",
    parameter REG_OUTPUT_CE = "CE0",
    parameter REG_INPUTA_RST = "RST0",
    parameter REG_INPUTB_RST = "RST0",
    parameter REG_OUTPUT_RST = "RST0",
    parameter SOURCEB_MODE = "B_SHIFT",
    parameter MULT_BYPASS = "DISABLED"
) (
    input CLK0, CE0, RST0, SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input
        A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input
        B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    output
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19,
        P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    localparam MODELLED = REG_INPUTA_CLK == "CLK0" && REG_INPUTB_CLK == "CLK0"
        && REG_PIPELINE_CLK == "NONE" && REG_OUTPUT_CLK == "CLK0" && REG_INPUTA_CE == "CE0"
        && REG_INPUTB_CE == "CE0" && REG_OUTPUT_CE == "CE0" && REG_INPUTA_RST == "RST0"
        && REG_INPUTB_RST == "RST0" && REG_OUTPUT_RST == "RST0" && SOURCEB_MODE == "B_SHIFT"
        && MULT_BYPASS == "DISABLED";
    if (!MODELLED) begin : attributes
        `REFUSE("MULT18X18D: an attribute has a value that isn't modelled")
    end

    reg [17:0] a, b;
    reg [35:0] p;
    initial {a, b, p} = 0;
    assign {
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19,
        P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
    } = p;
    always @(posedge CLK0) begin
        a <= {
            A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0
        };
        b <= {
            B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0
        };
        p <= a * b;
    end

`ifndef SYNTHESIS
    always @(posedge CLK0) begin
        if (!CE0 | RST0)
            $fatal(1, "MULT18X18D: registers that are held or cleared aren't modelled");
        if (SIGNEDA | SIGNEDB | SOURCEA | SOURCEB)
            $fatal(1, "MULT18X18D: factors with signs or of a cascade aren't modelled");
    end
`endif
endmodule

// LUT of four inputs (FPGA-DS-02012).
module LUT4 #(
    parameter [15:0] INIT = 0
) (
    input A,
    input B,
    input C,
    input D,
    output Z
);
    assign Z = INIT[{D, C, B, A}];
endmodule

// Multiplexer behind two LUTs (FPGA-DS-02012).
module PFUMX (
    input ALUT,
    input BLUT,
    input C0,
    output Z
);
    assign Z = C0 ? ALUT : BLUT;
endmodule

// Multiplexer behind two PFUMX, or two of its own kind (FPGA-DS-02012).
module L6MUX21 (
    input D0,
    input D1,
    input SD,
    output Z
);
    assign Z = SD ? D1 : D0;
endmodule
