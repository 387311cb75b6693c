#include "sat_verilated.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* The library's functions, by their names without "sat_". */
struct simulation {
    void *library, *card;
    uint8_t *content;
    void *(*create)(uint64_t memory_bytes, const char *trace_file);
    void (*destroy)(void *card);
    uint8_t *(*memory)(void *card);
    int (*read_register)(void *card, uint32_t offset, uint32_t *value);
    int (*write_register)(void *card, uint32_t offset, uint32_t value);
    int (*wait_interrupt)(void *card, uint64_t limit);
};

static int read_register(void *context, uint32_t offset, uint32_t *value)
{
    struct simulation *simulation = context;

    return simulation->read_register(simulation->card, offset, value) ? 0 : -1;
}

static int write_register(void *context, uint32_t offset, uint32_t value)
{
    struct simulation *simulation = context;

    return simulation->write_register(simulation->card, offset, value) ? 0 : -1;
}

static int read_memory(void *context, uint64_t address, void *data, size_t size)
{
    const struct simulation *simulation = context;

    memcpy(data, simulation->content + address, size);
    return 0;
}

static int write_memory(void *context, uint64_t address, const void *data, size_t size)
{
    const struct simulation *simulation = context;

    memcpy(simulation->content + address, data, size);
    return 0;
}

static int wait_interrupt(void *context, uint64_t timeout, int *high)
{
    struct simulation *simulation = context;

    *high = simulation->wait_interrupt(simulation->card, timeout);
    return 0;
}

/* Finds a function; `function` points to a pointer to one, which POSIX lets a void pointer be. */
static int find(void *library, const char *name, void *function)
{
    void *address = dlsym(library, name);

    memcpy(function, &address, sizeof address);
    return address != NULL;
}

int sat_verilated_open(struct sat_transport *transport, const char *library, uint64_t memory_bytes,
                       const char **reason)
{
    struct simulation *simulation = calloc(1, sizeof *simulation);

    if (!simulation) {
        *reason = "there is no memory left";
        return -1;
    }
    simulation->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!simulation->library) {
        *reason = dlerror();
        free(simulation);
        return -1;
    }
    if (!find(simulation->library, "sat_create", &simulation->create) ||
        !find(simulation->library, "sat_destroy", &simulation->destroy) ||
        !find(simulation->library, "sat_memory", &simulation->memory) ||
        !find(simulation->library, "sat_read_register", &simulation->read_register) ||
        !find(simulation->library, "sat_write_register", &simulation->write_register) ||
        !find(simulation->library, "sat_wait_interrupt", &simulation->wait_interrupt)) {
        *reason = "the library holds no simulated card";
    } else if (!(simulation->card = simulation->create(memory_bytes, NULL))) {
        *reason = "there is no room for the card's memory";
    } else {
        simulation->content = simulation->memory(simulation->card);
        transport->context = simulation;
        transport->read_register = read_register;
        transport->write_register = write_register;
        transport->read_memory = read_memory;
        transport->write_memory = write_memory;
        transport->wait_interrupt = wait_interrupt;
        return 0;
    }
    dlclose(simulation->library);
    free(simulation);
    return -1;
}

void sat_verilated_close(struct sat_transport *transport)
{
    struct simulation *simulation = transport->context;

    if (!simulation) return;
    simulation->destroy(simulation->card);
    dlclose(simulation->library);
    free(simulation);
    transport->context = NULL;
}
