/* Transport to the simulated card: the library that sim.verilated.build makes. Time-outs are cycles. */
#ifndef SAT_VERILATED_H
#define SAT_VERILATED_H

#include "sat.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Loads the library and makes a card with `memory_bytes` of memory, which are those of the
 * configuration. Returns 0, or -1 if the library can't be loaded or the memory can't be had; why is
 * then in `reason`, a static text.
 */
int sat_verilated_open(struct sat_transport *transport, const char *library, uint64_t memory_bytes,
                       const char **reason);

void sat_verilated_close(struct sat_transport *transport);

#ifdef __cplusplus
}
#endif

#endif /* SAT_VERILATED_H */
