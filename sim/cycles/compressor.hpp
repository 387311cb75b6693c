// N:M reducers and the packer behind them: `rtl/sparsity/{compressor,packer}.py`.

#pragma once

#include "fifo.hpp"
#include "gateware.hpp"

namespace sat {

// Tiles from chunks that arrive, one a cycle; beats of complete tiles leave.
class TileCompressor {
 public:
  // What a tile takes: arrivals, and beats that leave.
  void begin_command(int64_t arrivals, int64_t beats) {
    tile_arrivals_ = arrivals;
    tile_beats_ = beats;
  }

  bool free() const { return taken_ != kBuffers; }
  bool o_valid() const { return o_valid_; }
  // A tile's last chunk has been reduced, in this cycle.
  bool complete() const {
    return reducing_.at(kReducerLatency) && arrived_ + 1 == tile_arrivals_;
  }

  bool cycle(bool begin, bool i_valid, bool o_ready) {
    const bool completes = complete();
    const bool reads = waiting_ != 0 && (!o_valid_ || o_ready);
    const bool emptied = reads && beat_ + 1 == tile_beats_;
    const bool changes = begin || reads || (o_valid_ && o_ready);
    if (reducing_.at(kReducerLatency)) arrived_ = completes ? 0 : arrived_ + 1;
    if (reads) beat_ = emptied ? 0 : beat_ + 1;
    taken_ += begin - emptied;
    waiting_ += completes - emptied;
    if (!o_valid_ || o_ready) o_valid_ = reads;
    return reducing_.commit(i_valid, kReducerLatency) | changes;
  }

 private:
  static constexpr int kBuffers = 2;

  DelayLine reducing_;
  int64_t tile_arrivals_ = 0, tile_beats_ = 0, arrived_ = 0, beat_ = 0;
  int taken_ = 0, waiting_ = 0;
  bool o_valid_ = false;
};

}  // namespace sat
