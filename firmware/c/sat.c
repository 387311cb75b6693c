#include "sat.h"

#include "sat_registers.h"

#define OFFSET(name) ((uint32_t)offsetof(sat_t, name))

#define CAUSES (SAT__INTERRUPT_STATUS__DONE_bm | SAT__INTERRUPT_STATUS__FAULT_bm)

/* Looks at the card before a reset is given up; the time between them doubles. */
#define RESET_LOOKS 16

/* Returns from the function that it's used in unless `call` succeeds. */
#define TRY(call)                            \
    do {                                     \
        const int status_ = (call);          \
        if (status_ != SAT_OK) return status_; \
    } while (0)

int sat_card_read_register(struct sat_card *card, uint32_t offset, uint32_t *value)
{
    const struct sat_transport *transport = &card->transport;

    if (offset % 4) return SAT_ERROR_RANGE;
    if (transport->read_register(transport->context, offset, value)) return SAT_ERROR_TRANSPORT;
    return SAT_OK;
}

int sat_card_write_register(struct sat_card *card, uint32_t offset, uint32_t value)
{
    const struct sat_transport *transport = &card->transport;

    if (offset % 4) return SAT_ERROR_RANGE;
    if (transport->write_register(transport->context, offset, value)) return SAT_ERROR_TRANSPORT;
    return SAT_OK;
}

int sat_card_read_counter(struct sat_card *card, uint32_t offset, uint64_t *value)
{
    uint32_t low, high;

    TRY(sat_card_read_register(card, offset, &low));
    TRY(sat_card_read_register(card, offset + 4, &high));
    *value = (uint64_t)high << 32 | low;
    return SAT_OK;
}

static int is_inside(const struct sat_card *card, uint64_t address, uint64_t size)
{
    return address <= card->memory_bytes && size <= card->memory_bytes - address;
}

int sat_card_read_memory(struct sat_card *card, uint64_t address, void *data, size_t size)
{
    const struct sat_transport *transport = &card->transport;

    if (!is_inside(card, address, size)) return SAT_ERROR_RANGE;
    if (transport->read_memory(transport->context, address, data, size)) return SAT_ERROR_TRANSPORT;
    return SAT_OK;
}

int sat_card_write_memory(struct sat_card *card, uint64_t address, const void *data, size_t size)
{
    const struct sat_transport *transport = &card->transport;

    if (!is_inside(card, address, size)) return SAT_ERROR_RANGE;
    if (transport->write_memory(transport->context, address, data, size)) {
        return SAT_ERROR_TRANSPORT;
    }
    return SAT_OK;
}

static int enable_interrupts(struct sat_card *card)
{
    TRY(sat_card_write_register(card, OFFSET(INTERRUPT_ENABLE), CAUSES));
    return sat_card_write_register(card, OFFSET(GLOBAL_INTERRUPT_ENABLE),
                                   SAT__GLOBAL_INTERRUPT_ENABLE__ENABLE_bm);
}

int sat_card_open(struct sat_card *card, const struct sat_transport *transport,
                  uint32_t config_hash, uint64_t memory_bytes)
{
    uint32_t value;

    card->transport = *transport;
    card->memory_bytes = memory_bytes;
    TRY(sat_card_read_register(card, OFFSET(IDENTITY), &value));
    if (value != SAT__IDENTITY__VALUE_reset) return SAT_ERROR_IDENTITY;
    TRY(sat_card_read_register(card, OFFSET(VERSION), &value));
    if (value != SAT__VERSION__VALUE_reset) return SAT_ERROR_VERSION;
    TRY(sat_card_read_register(card, OFFSET(CONFIG_HASH), &value));
    if (value != config_hash) return SAT_ERROR_CONFIG;
    return enable_interrupts(card);
}

int sat_card_submit(struct sat_card *card, uint64_t address, uint32_t commands)
{
    uint32_t control;

    if (address % SAT_COMMAND_SIZE ||
        !is_inside(card, address, (uint64_t)commands * SAT_COMMAND_SIZE)) {
        return SAT_ERROR_RANGE;
    }
    TRY(sat_card_read_register(card, OFFSET(CONTROL), &control));
    if (!(control & SAT__CONTROL__IDLE_bm)) return SAT_ERROR_BUSY;
    TRY(sat_card_write_register(card, OFFSET(INTERRUPT_STATUS), CAUSES));
    TRY(sat_card_write_register(card, OFFSET(PROGRAM_LOW), (uint32_t)address));
    TRY(sat_card_write_register(card, OFFSET(PROGRAM_HIGH), (uint32_t)(address >> 32)));
    TRY(sat_card_write_register(card, OFFSET(PROGRAM_COMMANDS), commands));
    return sat_card_write_register(card, OFFSET(CONTROL), SAT__CONTROL__START_bm);
}

int sat_card_wait(struct sat_card *card, uint64_t timeout, struct sat_fault *fault)
{
    const struct sat_transport *transport = &card->transport;
    uint32_t control;
    int high;

    if (transport->wait_interrupt(transport->context, timeout, &high)) return SAT_ERROR_TRANSPORT;
    TRY(sat_card_read_register(card, OFFSET(CONTROL), &control));
    if (control & SAT__CONTROL__FAULT_bm) {
        if (fault) {
            TRY(sat_card_read_register(card, OFFSET(FAULT_CODE), &fault->code));
            TRY(sat_card_read_register(card, OFFSET(FAULT_COMMAND), &fault->command));
            TRY(sat_card_read_counter(card, OFFSET(FAULT_ADDRESS_LOW), &fault->address));
        }
        return SAT_ERROR_FAULT;
    }
    return control & SAT__CONTROL__DONE_bm ? SAT_OK : SAT_ERROR_TIMEOUT;
}

int sat_card_reset(struct sat_card *card, uint64_t timeout)
{
    const struct sat_transport *transport = &card->transport;
    uint32_t control;
    int look, high;

    TRY(sat_card_write_register(card, OFFSET(CONTROL), SAT__CONTROL__SOFT_RESET_bm));
    for (look = 0; look < RESET_LOOKS; look++) {
        TRY(sat_card_read_register(card, OFFSET(CONTROL), &control));
        if (!(control & SAT__CONTROL__SOFT_RESET_bm)) return enable_interrupts(card);
        /* The interrupt stays low: this only lets time pass, in a simulation as well. */
        if (transport->wait_interrupt(transport->context, timeout >> (RESET_LOOKS - look), &high)) {
            return SAT_ERROR_TRANSPORT;
        }
    }
    return SAT_ERROR_TIMEOUT;
}

const char *sat_status_text(int status)
{
    switch (status) {
    case SAT_OK: return "ok";
    case SAT_ERROR_TRANSPORT: return "the card can't be reached";
    case SAT_ERROR_IDENTITY: return "this is no SAT card";
    case SAT_ERROR_VERSION: return "gateware and software are of different versions";
    case SAT_ERROR_CONFIG: return "the gateware has another configuration";
    case SAT_ERROR_RANGE: return "the address is outside the card's memory, or misaligned";
    case SAT_ERROR_BUSY: return "the card isn't ready: reset it";
    case SAT_ERROR_TIMEOUT: return "it took too long";
    case SAT_ERROR_FAULT: return "the program stopped at a fault";
    default: return "unknown status";
    }
}

void sat_put(uint8_t command[SAT_COMMAND_SIZE], unsigned bit, unsigned width, uint64_t value)
{
    unsigned i;

    for (i = 0; i < width; i++) {
        if (value >> i & 1) command[(bit + i) / 8] |= (uint8_t)(1u << (bit + i) % 8);
    }
}
