#define _XOPEN_SOURCE 700 /* pread, pwrite, clock_gettime, posix_memalign */

#include "sat_xdma.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sat_registers.h"

enum {
    /* Older versions of the DMA engine want buffer and card address equal in their lowest bits. */
    ALIGNMENT = 64,
    LARGEST_TRANSFER = 1 << 20, /* bytes */
    REGISTER_BYTES = 4096,      /* the driver doesn't check what is behind them */
    /* Milliseconds without an event after which the registers are asked. */
    EVENT_SLICE = 500,
    /* Milliseconds in which the event of an interrupt arrives that has just risen. */
    EVENT_DELAY = 50,
    POLL_NANOSECONDS = 100000 /* between two looks at the registers without events */
};

static int read_register(void *context, uint32_t offset, uint32_t *value)
{
    const struct sat_xdma *xdma = context;
    ssize_t count;

    if (offset >= REGISTER_BYTES) return -1;
    do {
        count = pread(xdma->user, value, sizeof *value, offset);
    } while (count < 0 && errno == EINTR);
    return count == (ssize_t)sizeof *value ? 0 : -1;
}

static int write_register(void *context, uint32_t offset, uint32_t value)
{
    const struct sat_xdma *xdma = context;
    ssize_t count;

    if (offset >= REGISTER_BYTES) return -1;
    do {
        count = pwrite(xdma->user, &value, sizeof value, offset);
    } while (count < 0 && errno == EINTR);
    return count == (ssize_t)sizeof value ? 0 : -1;
}

/* Moves a piece of memory, in as many calls as it takes. */
static int move(const struct sat_xdma *xdma, uint64_t address, uint8_t *data, size_t size,
                int to_card)
{
    while (size) {
        const ssize_t count = to_card ? pwrite(xdma->h2c, data, size, (off_t)address)
                                      : pread(xdma->c2h, data, size, (off_t)address);

        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return -1;
        address += (uint64_t)count;
        data += count;
        size -= (size_t)count;
    }
    return 0;
}

/* Moves memory through a buffer that the engine can take. */
static int transfer(const struct sat_xdma *xdma, uint64_t address, uint8_t *in,
                    const uint8_t *out, size_t size)
{
    void *room;
    int status = 0;

    if (posix_memalign(&room, ALIGNMENT, LARGEST_TRANSFER + ALIGNMENT)) return -1;
    while (size && !status) {
        uint8_t *buffer = (uint8_t *)room + address % ALIGNMENT;
        const size_t piece = size < LARGEST_TRANSFER ? size : LARGEST_TRANSFER;

        if (out) {
            memcpy(buffer, out, piece);
            out += piece;
        }
        status = move(xdma, address, buffer, piece, out != NULL);
        if (in) {
            memcpy(in, buffer, piece);
            in += piece;
        }
        address += piece;
        size -= piece;
    }
    free(room);
    return status;
}

static int read_memory(void *context, uint64_t address, void *data, size_t size)
{
    return transfer(context, address, data, NULL, size);
}

static int write_memory(void *context, uint64_t address, const void *data, size_t size)
{
    return transfer(context, address, NULL, data, size);
}

/* Says whether the interrupt line is high, by the registers that it's made from. */
static int look(struct sat_xdma *xdma, int *high)
{
    uint32_t enabled, mask, met;

    if (read_register(xdma, offsetof(sat_t, GLOBAL_INTERRUPT_ENABLE), &enabled) ||
        read_register(xdma, offsetof(sat_t, INTERRUPT_ENABLE), &mask) ||
        read_register(xdma, offsetof(sat_t, INTERRUPT_STATUS), &met)) {
        return -1;
    }
    *high = enabled & SAT__GLOBAL_INTERRUPT_ENABLE__ENABLE_bm && mask & met;
    return 0;
}

/* Waits for an event and takes it; returns 1 if there was one, or may have been, 0, or -1. */
static int event(const struct sat_xdma *xdma, uint64_t timeout)
{
    struct pollfd file;
    uint32_t number;
    int ready;

    file.fd = xdma->events;
    file.events = POLLIN;
    ready = poll(&file, 1, (int)timeout);
    if (ready == 0) return 0;
    if (ready > 0 && read(xdma->events, &number, sizeof number) == (ssize_t)sizeof number) return 1;
    return errno == EINTR ? 1 : -1;
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

static int wait_interrupt(void *context, uint64_t timeout, int *high)
{
    struct sat_xdma *xdma = context;
    const uint64_t start = now();

    for (;;) {
        uint64_t passed;

        if (look(xdma, high)) return -1;
        passed = now() - start;
        if (*high || passed >= timeout) return 0;
        if (xdma->events >= 0) {
            const uint64_t left = timeout - passed;
            const int found = event(xdma, left < EVENT_SLICE ? left : EVENT_SLICE);

            if (found < 0) return -1;
            if (found) continue; /* it may be that of an interrupt which has been served already */
            if (look(xdma, high)) return -1;
            if (*high && event(xdma, EVENT_DELAY) == 0) {
                close(xdma->events);
                xdma->events = -1;
            }
        } else {
            const struct timespec pause = {0, POLL_NANOSECONDS};

            nanosleep(&pause, NULL);
        }
    }
}

static int open_device(unsigned number, const char *device, int flags)
{
    char name[64];

    snprintf(name, sizeof name, "/dev/xdma%u_%s", number, device);
    return open(name, flags);
}

int sat_xdma_open(struct sat_transport *transport, struct sat_xdma *xdma, unsigned number)
{
    xdma->h2c = xdma->c2h = xdma->events = -1;
    xdma->user = open_device(number, "user", O_RDWR);
    if (xdma->user >= 0) xdma->h2c = open_device(number, "h2c_0", O_WRONLY);
    if (xdma->h2c >= 0) xdma->c2h = open_device(number, "c2h_0", O_RDONLY);
    if (xdma->c2h < 0) {
        const int reason = errno;

        sat_xdma_close(xdma);
        errno = reason;
        return -1;
    }
    xdma->events = open_device(number, "events_0", O_RDONLY);
    transport->context = xdma;
    transport->read_register = read_register;
    transport->write_register = write_register;
    transport->read_memory = read_memory;
    transport->write_memory = write_memory;
    transport->wait_interrupt = wait_interrupt;
    return 0;
}

void sat_xdma_close(struct sat_xdma *xdma)
{
    if (xdma->user >= 0) close(xdma->user);
    if (xdma->h2c >= 0) close(xdma->h2c);
    if (xdma->c2h >= 0) close(xdma->c2h);
    if (xdma->events >= 0) close(xdma->events);
    xdma->user = xdma->h2c = xdma->c2h = xdma->events = -1;
}
