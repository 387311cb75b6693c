/*
 * Transport to a board with AMD's XDMA driver, on Linux. Time-outs are milliseconds.
 *
 * Where the board has no interrupts, or one was lost, its registers are polled instead.
 */
#ifndef SAT_XDMA_H
#define SAT_XDMA_H

#include "sat.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sat_xdma {
    int user, h2c, c2h; /* files */
    int events;         /* file, or -1 without interrupts */
};

/*
 * Opens /dev/xdmaNUMBER_user, _h2c_0, _c2h_0 and, if it can be, _events_0. `xdma` is what the
 * transport works with, until sat_xdma_close. Returns 0, or -1 with the reason in errno.
 */
int sat_xdma_open(struct sat_transport *transport, struct sat_xdma *xdma, unsigned number);

void sat_xdma_close(struct sat_xdma *xdma);

#ifdef __cplusplus
}
#endif

#endif /* SAT_XDMA_H */
