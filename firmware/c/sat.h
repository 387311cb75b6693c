/*
 * Driver of SAT in C99: registers, memory, and programs that are submitted and waited for.
 *
 * How the card is reached is up to a transport, which is a few functions: sat_xdma.h has one for
 * boards behind PCIe, sat_verilated.h one for the simulated card. Registers are those of
 * sat_registers.h; the configuration and the fields of commands are in the header that rtl.build
 * wrote for it, such as sat_sim.h. The driver allocates nothing and has no global state, so that
 * several cards can be used at once, each by one thread.
 */
#ifndef SAT_H
#define SAT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SAT_COMMAND_SIZE 64 /* bytes */

/* What every function returns but those that say so. */
enum sat_status {
    SAT_OK = 0,
    SAT_ERROR_TRANSPORT = -1, /* the transport failed */
    SAT_ERROR_IDENTITY = -2,  /* this is no SAT card */
    SAT_ERROR_VERSION = -3,   /* gateware and this header are of different versions */
    SAT_ERROR_CONFIG = -4,    /* the gateware has another configuration */
    SAT_ERROR_RANGE = -5,     /* an address outside the card's memory, or misaligned */
    SAT_ERROR_BUSY = -6,      /* a program runs, or one stopped at a fault: reset the card */
    SAT_ERROR_TIMEOUT = -7,   /* it took longer than allowed */
    SAT_ERROR_FAULT = -8      /* the program stopped at a fault */
};

/*
 * How a card is reached. Each function returns 0, or something else if it failed; none may block
 * for ever. Time-outs are in the transport's own unit: milliseconds, or cycles of a simulation.
 */
struct sat_transport {
    void *context; /* first argument of the functions */
    int (*read_register)(void *context, uint32_t offset, uint32_t *value);
    int (*write_register)(void *context, uint32_t offset, uint32_t value);
    int (*read_memory)(void *context, uint64_t address, void *data, size_t size);
    int (*write_memory)(void *context, uint64_t address, const void *data, size_t size);
    /* Waits until the interrupt line is high, `timeout` at most; says in `high` whether it is. */
    int (*wait_interrupt)(void *context, uint64_t timeout, int *high);
};

struct sat_card {
    struct sat_transport transport;
    uint64_t memory_bytes;
};

/* Where and why a program stopped. */
struct sat_fault {
    uint32_t code; /* one of SAT_FAULT_* in the configuration's header */
    uint32_t command; /* index in the program */
    uint64_t address; /* of memory or scratchpad */
};

/*
 * Checks identity, version and configuration, and enables the interrupt. `config_hash` and
 * `memory_bytes` are SAT_CONFIG_HASH and SAT_MEMORY_BYTES of the configuration's header.
 */
int sat_card_open(struct sat_card *card, const struct sat_transport *transport,
                  uint32_t config_hash, uint64_t memory_bytes);

int sat_card_read_register(struct sat_card *card, uint32_t offset, uint32_t *value);
int sat_card_write_register(struct sat_card *card, uint32_t offset, uint32_t value);

/* Reads a counter, by the offset of its low word; exact while no program runs. */
int sat_card_read_counter(struct sat_card *card, uint32_t offset, uint64_t *value);

int sat_card_read_memory(struct sat_card *card, uint64_t address, void *data, size_t size);
int sat_card_write_memory(struct sat_card *card, uint64_t address, const void *data, size_t size);

/*
 * Starts the program of `commands` commands at `address`, a multiple of SAT_COMMAND_SIZE. The last
 * command is a FINISH.
 */
int sat_card_submit(struct sat_card *card, uint64_t address, uint32_t commands);

/* Waits for the end of the program. With SAT_ERROR_FAULT, `fault` (if not NULL) says where. */
int sat_card_wait(struct sat_card *card, uint64_t timeout, struct sat_fault *fault);

/* Abandons what runs, clears faults and counters, and waits until the card is ready again. */
int sat_card_reset(struct sat_card *card, uint64_t timeout);

/* Returns a status in words. */
const char *sat_status_text(int status);

/* Sets a field of a command, of which all bytes were zero at first; SAT_PUT knows its place. */
void sat_put(uint8_t command[SAT_COMMAND_SIZE], unsigned bit, unsigned width, uint64_t value);

/* SAT_PUT(command, SAT_LOAD_ROWS, 16) */
#define SAT_PUT(command, field, value) \
    sat_put(command, (unsigned)field##_BIT, (unsigned)field##_WIDTH, (uint64_t)(value))

#ifdef __cplusplus
}
#endif

#endif /* SAT_H */
