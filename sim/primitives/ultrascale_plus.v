// Models of the UltraScale+ primitives that rtl/ places, for simulators and for proofs.
//
// Each does what the gateware makes use of, and refuses other attributes and controls, so that it
// never does less than on the FPGA without a word. Yosys must defer elaboration (read_verilog -defer).

// Yosys knows $fatal in elaboration only, where Verilator takes it for a warning.
`ifdef SYNTHESIS
`define REFUSE(message) $fatal(1, message);
`else
`define REFUSE(message) initial $fatal(1, message);
`endif

// Multiplier with pre-adder and post-adder (UG579): P = Z +- AD * B, where AD is A, D or their sum,
// and Z is C or zero; A, D and INMODE have no registers, everything else has, and none is reset or
// held.
module DSP48E2 #(
    parameter integer ACASCREG = 1,
    parameter integer ADREG = 1,
    parameter integer ALUMODEREG = 1,
    parameter AMULTSEL = "A",
    parameter integer AREG = 1,
    parameter A_INPUT = "DIRECT",
    parameter integer BCASCREG = 1,
    parameter BMULTSEL = "B",
    parameter integer BREG = 1,
    parameter B_INPUT = "DIRECT",
    parameter integer CARRYINREG = 1,
    parameter integer CARRYINSELREG = 1,
    parameter integer CREG = 1,
    parameter integer DREG = 1,
    parameter integer INMODEREG = 1,
    parameter integer MREG = 1,
    parameter integer OPMODEREG = 1,
    parameter PREADDINSEL = "A",
    parameter integer PREG = 1,
    parameter USE_MULT = "MULTIPLY",
    parameter USE_SIMD = "ONE48"
) (
    input CLK,
    input [29:0] A,
    input [29:0] ACIN,
    input [17:0] B,
    input [17:0] BCIN,
    input [47:0] C,
    input [26:0] D,
    input [47:0] PCIN,
    input CARRYCASCIN,
    input CARRYIN,
    input MULTSIGNIN,
    input [4:0] INMODE,
    input [8:0] OPMODE,
    input [3:0] ALUMODE,
    input [2:0] CARRYINSEL,
    input CEA1, CEA2, CEAD, CEALUMODE, CEB1, CEB2, CEC, CECARRYIN, CECTRL, CED, CEINMODE, CEM, CEP,
    input RSTA, RSTALLCARRYIN, RSTALUMODE, RSTB, RSTC, RSTCTRL, RSTD, RSTINMODE, RSTM, RSTP,
    output [47:0] P
);
    localparam MODELLED = AREG == 0 && ACASCREG == 0 && BREG == 2 && BCASCREG == 2 && CREG == 1
        && DREG == 0 && ADREG == 1 && MREG == 1 && PREG == 1 && INMODEREG == 0 && OPMODEREG == 1
        && ALUMODEREG == 1 && CARRYINREG == 0 && CARRYINSELREG == 0 && A_INPUT == "DIRECT"
        && B_INPUT == "DIRECT" && AMULTSEL == "AD" && BMULTSEL == "B" && PREADDINSEL == "A"
        && USE_MULT == "MULTIPLY" && USE_SIMD == "ONE48";
    if (!MODELLED) begin : attributes
        `REFUSE("DSP48E2: an attribute has a value that isn't modelled")
    end

    reg signed [26:0] ad;
    reg signed [17:0] b1, b2;
    reg signed [44:0] m;
    reg signed [47:0] c, p;
    reg take_c, subtract;
    initial {ad, b1, b2, m, c, p, take_c, subtract} = 0;

    wire signed [26:0] a = A[26:0], d = D;
    wire signed [47:0] z = take_c ? c : 48'sd0;
    always @(posedge CLK) begin
        b1 <= B;
        ad <= (INMODE[1] ? 27'sd0 : a) + (INMODE[2] ? d : 27'sd0);
        b2 <= b1;
        m <= ad * b2;
        c <= C;
        take_c <= OPMODE[5];
        subtract <= ALUMODE[0];
        p <= subtract ? z - m : z + m;
    end
    assign P = p;

`ifndef SYNTHESIS
    wire held = !(CEAD & CEB1 & CEB2 & CEM & CEC & CEP & CECTRL & CEALUMODE);
    wire cleared = RSTB | RSTC | RSTD | RSTM | RSTP | RSTCTRL | RSTALUMODE | RSTALLCARRYIN;
    wire carried = CARRYIN | (CARRYINSEL != 0);
    always @(posedge CLK) begin
        if (held | cleared | carried)
            $fatal(1, "DSP48E2: registers that are held or cleared, and carries, aren't modelled");
        if ((INMODE & 5'b11001) != 0)
            $fatal(1, "DSP48E2: INMODE %b isn't modelled", INMODE);
        if (OPMODE != 9'b00_000_01_01 && OPMODE != 9'b00_011_01_01)
            $fatal(1, "DSP48E2: OPMODE %b isn't modelled", OPMODE);
        if (ALUMODE != 4'b0000 && ALUMODE != 4'b0011)
            $fatal(1, "DSP48E2: ALUMODE %b isn't modelled", ALUMODE);
    end
`endif
endmodule

// Multiplexer behind two LUTs (UG574).
module MUXF7 (
    input I0,
    input I1,
    input S,
    output O
);
    assign O = S ? I1 : I0;
endmodule

// Multiplexer behind two MUXF7 (UG574).
module MUXF8 (
    input I0,
    input I1,
    input S,
    output O
);
    assign O = S ? I1 : I0;
endmodule

// Eight LUTs as memories of 32 words of two bits, written at ADDRH; reads take no clock (UG574).
module RAM32M16 #(
    parameter [63:0] INIT_A = 0,
    parameter [63:0] INIT_B = 0,
    parameter [63:0] INIT_C = 0,
    parameter [63:0] INIT_D = 0,
    parameter [63:0] INIT_E = 0,
    parameter [63:0] INIT_F = 0,
    parameter [63:0] INIT_G = 0,
    parameter [63:0] INIT_H = 0,
    parameter [0:0] IS_WCLK_INVERTED = 0
) (
    input WCLK,
    input WE,
    input [4:0] ADDRA, ADDRB, ADDRC, ADDRD, ADDRE, ADDRF, ADDRG, ADDRH,
    input [1:0] DIA, DIB, DIC, DID, DIE, DIF, DIG, DIH,
    output [1:0] DOA, DOB, DOC, DOD, DOE, DOF, DOG, DOH
);
    localparam MODELLED = !IS_WCLK_INVERTED
        && (INIT_A | INIT_B | INIT_C | INIT_D | INIT_E | INIT_F | INIT_G | INIT_H) == 0;
    if (!MODELLED) begin : attributes
        `REFUSE("RAM32M16: initial content and an inverted clock aren't modelled")
    end

    reg [15:0] words [0:31];
    integer word;
    initial for (word = 0; word < 32; word = word + 1) words[word] = 0;

    always @(posedge WCLK) if (WE) words[ADDRH] <= {DIH, DIG, DIF, DIE, DID, DIC, DIB, DIA};

    assign DOA = words[ADDRA][1:0];
    assign DOB = words[ADDRB][3:2];
    assign DOC = words[ADDRC][5:4];
    assign DOD = words[ADDRD][7:6];
    assign DOE = words[ADDRE][9:8];
    assign DOF = words[ADDRF][11:10];
    assign DOG = words[ADDRG][13:12];
    assign DOH = words[ADDRH][15:14];
endmodule
