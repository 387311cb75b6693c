// Descriptors to bursts, DMAs, and what ends commands that write:
// `rtl/memory/{burst,read_dma,write_dma,write_completion}.py`.

#pragma once

#include <algorithm>
#include <array>

#include "fifo.hpp"
#include "gateware.hpp"
#include "memory.hpp"

namespace sat {

// Offers the bursts of a descriptor, one per cycle.
class BurstGenerator {
 public:
  BurstGenerator(const Config& config, int64_t longest)
      : beat_shift_(__builtin_ctzll(config.beat_bytes)), block_beats_(longest) {}

  bool active() const { return active_; }
  const Burst& burst() const { return burst_; }

  void begin(const Descriptor& descriptor) {
    counts_ = descriptor.counts;
    strides_ = descriptor.strides;
    indices_ = {};
    starts_.fill(descriptor.address);
    beats_left_ = counts_[0];
    active_ = true;
    offer(descriptor.address);
  }

  // The burst on offer is taken.
  void advance() {
    if (burst_.beats < beats_left_) {
      beats_left_ -= burst_.beats;
      offer(burst_.address + (burst_.beats << beat_shift_));
      return;
    }
    size_t level = 0;
    while (level < indices_.size() && indices_[level] == counts_[level + 1] - 1) {
      indices_[level++] = 0;
    }
    if (level == indices_.size()) {
      active_ = false;
      return;
    }
    ++indices_[level];
    const int64_t row = starts_[level] + strides_[level];
    std::fill_n(starts_.begin(), level + 1, row);
    beats_left_ = counts_[0];
    offer(row);
  }

 private:
  void offer(int64_t address) {
    const int64_t room = block_beats_ - (address >> beat_shift_ & (block_beats_ - 1));
    burst_ = {address, std::min(room, beats_left_)};
  }

  int beat_shift_;
  int64_t block_beats_;
  std::array<int64_t, 4> counts_{};
  std::array<int64_t, 3> strides_{}, indices_{}, starts_{};
  int64_t beats_left_ = 0;
  Burst burst_;
  bool active_ = false;
};

// Bursts to an address channel. `data` of the gateware's read DMA is whatever its owner consumes.
class ReadDma {
 public:
  explicit ReadDma(const Config& config)
      : bursts_(config, config.burst_beats), most_(config.outstanding_reads * config.burst_beats) {}

  bool descriptor_ready() const { return !bursts_.active(); }
  bool ar_valid() const { return ar_valid_; }
  const Burst& ar() const { return ar_; }

  // `descriptor`: taken in this cycle; `beat`: one is handed over. Tells whether anything changes.
  bool cycle(const Descriptor* descriptor, bool ar_ready, bool beat) {
    const bool was_active = bursts_.active();
    const bool issue = was_active && (!ar_valid_ || ar_ready) &&
                       under_way_ + bursts_.burst().beats <= most_;
    const bool changes = descriptor || issue || beat || (ar_valid_ && ar_ready);
    under_way_ -= beat;
    if (issue) {
      ar_ = bursts_.burst();
      under_way_ += ar_.beats;
      bursts_.advance();
      ar_valid_ = true;
    } else if (ar_ready) {
      ar_valid_ = false;
    }
    if (descriptor) bursts_.begin(*descriptor);
    return changes;
  }

  // For how many cycles it asks for the same, if a beat is handed over in each of them or in none,
  // and nothing else happens.
  int64_t streak(bool beat) const {
    if (!bursts_.active() || ar_valid_) return kNever;
    const int64_t lacking = under_way_ + bursts_.burst().beats - most_;
    return lacking > 0 && !beat ? kNever : lacking;
  }
  void repeat(int64_t cycles) { under_way_ -= cycles; }

 private:
  BurstGenerator bursts_;
  int64_t most_, under_way_ = 0;  // beats
  Burst ar_;
  bool ar_valid_ = false;
};

class WriteDma {
 public:
  explicit WriteDma(const Config& config)
      : bursts_(config, config.write_burst_beats),
        lengths_(kMasterBursts),
        starts_(kMasterBursts) {}

  bool descriptor_ready() const { return !bursts_.active(); }
  bool aw_valid() const { return aw_valid_; }
  const Burst& aw() const { return aw_; }
  bool w_valid() const { return w_valid_; }
  bool w_last() const { return w_last_; }
  // Bursts so far.
  int64_t issued() const { return issued_; }
  int64_t acknowledged() const { return acknowledged_; }
  bool data_ready(bool w_ready) const { return (!w_valid_ || w_ready) && lengths_.readable(); }

  // Returns whether anything changes. `data_taken`: a beat came in, which needs `data_ready`.
  bool cycle(const Descriptor* descriptor, bool aw_ready, bool w_ready, bool data_taken,
             bool response) {
    const bool issue = bursts_.active() && (!aw_valid_ || aw_ready) && starts_.writable();
    bool changes = descriptor || issue || data_taken || response || (aw_valid_ && aw_ready) ||
                   (w_valid_ && w_ready);
    if (data_taken) {
      w_last_ = position_ + 1 == lengths_.front();
      if (w_last_) lengths_.read();
      position_ = w_last_ ? 0 : position_ + 1;
      w_valid_ = true;
    } else if (w_ready) {
      w_valid_ = false;
    }
    if (issue) {
      aw_ = bursts_.burst();
      lengths_.write(aw_.beats);
      starts_.write({});
      ++issued_;
      bursts_.advance();
      aw_valid_ = true;
    } else if (aw_ready) {
      aw_valid_ = false;
    }
    if (descriptor) bursts_.begin(*descriptor);
    if (response) starts_.read();
    acknowledged_ += response;
    lengths_.commit();
    starts_.commit();
    return changes;
  }

  // For how many cycles, this one included, it asks for and offers the same, if beats come in and
  // leave in each of them or in none, and nothing else happens.
  int64_t streak(bool aw_ready, bool w_ready, bool data_taken) const {
    const bool issues = bursts_.active() && (!aw_valid_ || aw_ready) && starts_.writable();
    if (issues || (aw_valid_ && aw_ready)) return 1;
    if (!data_taken) return w_valid_ && w_ready ? 1 : kNever;
    return w_valid_ && !w_last_ ? lengths_.front() - position_ - 1 : 1;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles, bool data_taken) {
    if (data_taken) position_ += cycles;
  }

 private:
  BurstGenerator bursts_;
  Fifo<int64_t> lengths_;
  Fifo<Nothing> starts_;
  Burst aw_;
  int64_t position_ = 0, issued_ = 0, acknowledged_ = 0;
  bool aw_valid_ = false, w_valid_ = false, w_last_ = false;
};

// Commands that have handed over all their beats end as the last of them is acknowledged:
// `rtl/memory/write_completion.py`.
class WriteCompletion {
 public:
  WriteCompletion() : ends_(kWritersUnderWay) {}

  // The oldest command ends in this cycle.
  bool done(const WriteDma& dma) const {
    return ends_.readable() && ends_.front() <= dma.acknowledged();
  }
  // Before that of `dma`.
  void cycle(bool handed_over, const WriteDma& dma) {
    if (done(dma)) ends_.read();
    if (handed_over) ends_.write(dma.issued());
    ends_.commit();
  }

 private:
  Fifo<int64_t> ends_;  // the bursts up to the last one of each
};

}  // namespace sat
