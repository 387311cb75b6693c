// Read ports that several share: `rtl/interface/{read_buffer,read_arbiter}.py`.

#pragma once

#include <algorithm>
#include <array>

#include "dma.hpp"
#include "fifo.hpp"
#include "gateware.hpp"
#include "memory.hpp"

namespace sat {

// Asks only for what it has room for.
class ReadBuffer {
 public:
  explicit ReadBuffer(const Config& config) : beats_(room(config)), free_(room(config)) {}

  // The burst that it asks for, if any.
  const Burst* ar(const ReadDma& dma) const {
    return dma.ar_valid() && dma.ar().beats <= free_ ? &dma.ar() : nullptr;
  }
  // A beat is there.
  bool beat() const { return beats_.readable(); }

  // `granted`: the burst is taken; `r`: a beat comes; `beat_taken`: one leaves.
  bool cycle(const ReadDma& dma, bool granted, bool r, bool beat_taken) {
    free_ += beat_taken - (granted ? dma.ar().beats : 0);
    if (r) beats_.write({});
    if (beat_taken) beats_.read();
    return beats_.commit();
  }

  // For how many cycles, this one included, it does the same if all around it do.
  int64_t streak(const ReadDma& dma, bool r, bool beat_taken) const {
    const int64_t cycles = beats_.streak(r, beat_taken);
    const int64_t lacking = dma.ar_valid() ? dma.ar().beats - free_ : 0;
    return beat_taken && lacking > 0 ? std::min(cycles, lacking) : cycles;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles, bool r, bool beat_taken) {
    if (beat_taken) free_ += cycles;
    beats_.repeat(cycles, r, beat_taken);
  }

  // Of beats.
  static int64_t room(const Config& config) {
    return config.outstanding_reads * config.burst_beats;
  }

 private:
  BufferedFifo<Nothing> beats_;
  int64_t free_;
};

// Shares one read port between masters that take whatever comes.
class ReadArbiter {
 public:
  static constexpr int kMostMasters = 3;
  // The burst of each master that asks for one, or null.
  using Offers = std::array<const Burst*, kMostMasters>;

  explicit ReadArbiter(int64_t bursts) : owners_(bursts) {}

  const Burst* ar() const { return is_chosen_ ? &chosen_ : nullptr; }
  // Whose the beat is that memory has.
  int owner() const { return owners_.front(); }

  // Whose burst is taken in this cycle.
  void settle(const Offers& offers, bool ar_ready) {
    granted_ = -1;
    if ((is_chosen_ && !ar_ready) || !owners_.writable()) return;
    for (int i = 1; i <= kMostMasters && granted_ < 0; ++i) {
      const int master = (turn_ + i) % kMostMasters;
      if (offers[master]) {
        granted_ = master;
        next_ = *offers[master];
      }
    }
  }
  bool grants(int master) const { return granted_ == master; }

  // `r_last`: the last beat of a burst is taken.
  bool cycle(bool ar_ready, bool r_last) {
    if (ar_ready) is_chosen_ = false;
    if (granted_ >= 0) {
      turn_ = granted_;
      chosen_ = next_;
      is_chosen_ = true;
      owners_.write(granted_);
    }
    if (r_last) owners_.read();
    return owners_.commit() || is_chosen_;
  }

  // For how many cycles, this one included, it does the same if all around it do.
  int64_t streak(bool ar_ready, bool r_last) const {
    const bool moves = (is_chosen_ && ar_ready) || granted_ >= 0 || r_last;
    return moves || !owners_.settled() ? 1 : kNever;
  }

 private:
  BufferedFifo<int> owners_;
  Burst chosen_, next_;
  int turn_ = 0, granted_ = -1;
  bool is_chosen_ = false;
};

}  // namespace sat
