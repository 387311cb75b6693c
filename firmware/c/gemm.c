/*
 * Multiplies two matrices on the simulated card and checks every bit of the result.
 *
 *     gemm LIBRARY
 *
 * LIBRARY is the simulated card; docs/host.md says how to make it, and how to build this program.
 * SAT_CONFIGURATION is the header that rtl.build wrote for the card's configuration.
 */
#include <stdio.h>
#include <string.h>

#include "sat.h"
#include "sat_registers.h"
#include "sat_verilated.h"
#include SAT_CONFIGURATION

enum {
    G = (int)SAT_ELEMENTS, /* rows of both operands, and binary16 values in a beat of memory */
    WORDS = 2,             /* beats of a row */
    K = WORDS * G,         /* length of the reduction */
    BEAT = (int)SAT_BEAT_BYTES,
    ROWS = (int)SAT_ROWS,
    TILE_ROWS = (int)(SAT_COLS * SAT_INTERLEAVE), /* rows of D in a tile of the product */
    TILES = (G + TILE_ROWS - 1) / TILE_ROWS,
    LOADS = 1 << (int)SAT_QUEUE_LOAD, /* the queues that commands wait for and signal to */
    COMPUTES = 1 << (int)SAT_QUEUE_COMPUTE,
    STORES = 1 << (int)SAT_QUEUE_STORE,
    COMMANDS = 5,
    TIMEOUT = 1000000 /* cycles */
};

/* Where things are in the card's memory. */
static const uint64_t s_at = 0x4000, d_at = 0x8000, result_at = 0xC000, program_at = 0x10000;

static int left(int row, int k) { return (row * 31 + k * 17) % 257 - 128; }
static int right(int row, int k) { return (row * 57 + k * 91) % 129 - 64; }

/* Writes a whole number from -1,024 to 1,024 as binary16, little-endian. */
static void put_half(uint8_t *place, int value)
{
    unsigned magnitude = value < 0 ? (unsigned)-value : (unsigned)value;
    unsigned exponent = 25; /* that of 1,024, biased */
    unsigned bits = 0;

    if (magnitude) {
        while (magnitude < 1024) {
            magnitude *= 2;
            exponent--;
        }
        bits = (value < 0 ? 0x8000u : 0u) | exponent << 10 | (magnitude & 1023);
    }
    place[0] = (uint8_t)bits;
    place[1] = (uint8_t)(bits >> 8);
}

/* S is tiles of G rows by one beat, one after the other; D is row after row. */
static int write_operands(struct sat_card *card)
{
    static uint8_t s[G * K * 2], d[G * K * 2];
    int row, k, status;

    for (row = 0; row < G; row++) {
        for (k = 0; k < K; k++) {
            put_half(&s[((k / G * G + row) * G + k % G) * 2], left(row, k));
            put_half(&d[(row * K + k) * 2], right(row, k));
        }
    }
    status = sat_card_write_memory(card, s_at, s, sizeof s);
    return status ? status : sat_card_write_memory(card, d_at, d, sizeof d);
}

/* A transfer of beats that follow each other. */
#define PUT_DESCRIPTOR(command, kind, address, beats)               \
    do {                                                            \
        SAT_PUT(command, SAT_##kind##_DESCRIPTOR_ADDRESS, address); \
        SAT_PUT(command, SAT_##kind##_DESCRIPTOR_COUNTS_0, beats);  \
        SAT_PUT(command, SAT_##kind##_DESCRIPTOR_COUNTS_1, 1);      \
        SAT_PUT(command, SAT_##kind##_DESCRIPTOR_COUNTS_2, 1);      \
        SAT_PUT(command, SAT_##kind##_DESCRIPTOR_COUNTS_3, 1);      \
    } while (0)

/* Loads both operands, multiplies them, stores the product as binary32. */
static int write_program(struct sat_card *card)
{
    static uint8_t program[COMMANDS][SAT_COMMAND_SIZE];
    uint8_t *command = program[0];

    SAT_PUT(command, SAT_HEADER_OPCODE, SAT_OPCODE_LOAD);
    SAT_PUT(command, SAT_LOAD_TARGET, SAT_LOAD_TARGET_S);
    SAT_PUT(command, SAT_LOAD_PATTERN, SAT_PATTERN_DENSE);
    SAT_PUT(command, SAT_LOAD_ROWS, G);
    SAT_PUT(command, SAT_LOAD_D_WORDS, WORDS);
    PUT_DESCRIPTOR(command, LOAD, s_at, G * WORDS);

    command = program[1];
    SAT_PUT(command, SAT_HEADER_OPCODE, SAT_OPCODE_LOAD);
    SAT_PUT(command, SAT_HEADER_SIGNAL, COMPUTES);
    SAT_PUT(command, SAT_LOAD_TARGET, SAT_LOAD_TARGET_D);
    SAT_PUT(command, SAT_LOAD_ROWS, G);
    SAT_PUT(command, SAT_LOAD_D_WORDS, WORDS);
    PUT_DESCRIPTOR(command, LOAD, d_at, G * WORDS);

    command = program[2];
    SAT_PUT(command, SAT_HEADER_OPCODE, SAT_OPCODE_COMPUTE);
    SAT_PUT(command, SAT_HEADER_WAIT, LOADS);
    SAT_PUT(command, SAT_HEADER_SIGNAL, STORES);
    SAT_PUT(command, SAT_COMPUTE_PATTERN, SAT_PATTERN_DENSE);
    SAT_PUT(command, SAT_COMPUTE_D_WORDS, WORDS);
    SAT_PUT(command, SAT_COMPUTE_A_TILES, G / ROWS);
    SAT_PUT(command, SAT_COMPUTE_B_TILES, TILES);
    SAT_PUT(command, SAT_COMPUTE_B_PADDING, TILES * TILE_ROWS - G);
    SAT_PUT(command, SAT_COMPUTE_O_STRIDE, 2);
    /* In the scratchpad, too, D is row after row: each bank has TILES * SAT_INTERLEAVE of them. */
    SAT_PUT(command, SAT_COMPUTE_D_ROWS_COUNTS_0, TILES * SAT_INTERLEAVE);
    SAT_PUT(command, SAT_COMPUTE_D_ROWS_STEPS_0, WORDS);
    SAT_PUT(command, SAT_COMPUTE_D_ROWS_COUNTS_1, 1);
    SAT_PUT(command, SAT_COMPUTE_D_ROWS_COUNTS_2, 1);
    SAT_PUT(command, SAT_COMPUTE_D_REDUCTION_COUNTS_0, WORDS);
    SAT_PUT(command, SAT_COMPUTE_D_REDUCTION_STEPS_0, 1);
    SAT_PUT(command, SAT_COMPUTE_D_REDUCTION_COUNTS_1, 1);
    SAT_PUT(command, SAT_COMPUTE_D_REDUCTION_COUNTS_2, 1);

    command = program[3];
    SAT_PUT(command, SAT_HEADER_OPCODE, SAT_OPCODE_STORE);
    SAT_PUT(command, SAT_HEADER_WAIT, COMPUTES);
    SAT_PUT(command, SAT_STORE_O_STRIDE, 2);
    SAT_PUT(command, SAT_STORE_ROWS, G);
    SAT_PUT(command, SAT_STORE_WORDS, 2);
    PUT_DESCRIPTOR(command, STORE, result_at, G * 2);

    SAT_PUT(program[4], SAT_HEADER_OPCODE, SAT_OPCODE_FINISH);
    return sat_card_write_memory(card, program_at, program, sizeof program);
}

/* Counts the wrong results: sums of whole numbers this small are exact in binary32. */
static int check_result(struct sat_card *card, int *wrong)
{
    static uint8_t result[G * 2 * BEAT];
    const int status = sat_card_read_memory(card, result_at, result, sizeof result);
    int a, b, k;

    *wrong = 0;
    for (b = 0; b < G && !status; b++) {
        for (a = 0; a < G; a++) {
            const uint8_t *place = &result[(b * G + a) * 4];
            const uint32_t found = place[0] | (uint32_t)place[1] << 8 | (uint32_t)place[2] << 16 |
                                   (uint32_t)place[3] << 24;
            uint32_t expected;
            float sum = 0;

            for (k = 0; k < K; k++) sum += (float)(left(a, k) * right(b, k));
            memcpy(&expected, &sum, sizeof expected);
            *wrong += found != expected;
        }
    }
    return status;
}

int main(int count, char **arguments)
{
    struct sat_transport transport;
    struct sat_card card;
    struct sat_fault fault;
    const char *reason;
    uint64_t cycles = 0;
    int status, wrong = 0;

    if (count != 2) {
        fprintf(stderr, "usage: gemm LIBRARY\n");
        return 2;
    }
    if (sat_verilated_open(&transport, arguments[1], SAT_MEMORY_BYTES, &reason)) {
        fprintf(stderr, "gemm: %s\n", reason);
        return 2;
    }
    status = sat_card_open(&card, &transport, SAT_CONFIG_HASH, SAT_MEMORY_BYTES);
    if (!status) status = write_operands(&card);
    if (!status) status = write_program(&card);
    if (!status) status = sat_card_submit(&card, program_at, COMMANDS);
    if (!status) status = sat_card_wait(&card, TIMEOUT, &fault);
    if (!status) status = check_result(&card, &wrong);
    if (!status) {
        status = sat_card_read_counter(&card, (uint32_t)offsetof(sat_t, CYCLES_LOW), &cycles);
    }
    if (status) {
        fprintf(stderr, "gemm: %s\n", sat_status_text(status));
        if (status == SAT_ERROR_FAULT) {
            fprintf(stderr, "gemm: fault %u at command %u, address %#llx\n", (unsigned)fault.code,
                    (unsigned)fault.command, (unsigned long long)fault.address);
        }
    } else {
        printf("%d x %d by %d x %d on '%s': %d of %d results wrong, %llu cycles\n", G, K, K, G,
               SAT_CONFIG_NAME, wrong, G * G, (unsigned long long)cycles);
    }
    sat_verilated_close(&transport);
    return status || wrong ? 1 : 0;
}
