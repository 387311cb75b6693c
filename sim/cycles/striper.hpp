// Memory of several channels as one: `rtl/interface/{striping,read_striper,write_striper}.py`.
//
// Channels are driven by their owner; these take from them what there is.

#pragma once

#include <vector>

#include "fifo.hpp"
#include "gateware.hpp"
#include "memory.hpp"

namespace sat {

inline int64_t channel_of(const Config& config, int64_t address) {
  return address / kPageBytes & (config.channels - 1);
}

class ReadStriper {
 public:
  ReadStriper(const Config& config, std::vector<Channel>& channels)
      : config_(config),
        channels_(channels),
        bursts_(channels.size(), Fifo<int64_t>(kChannelBursts)),
        turns_(kStriperBeats),
        waiting_(channels.size()),
        free_(channels.size(), kStriperBeats / config.channels) {}

  bool ar_ready(const Burst& burst) const {
    const int64_t target = channel_of(config_, burst.address);
    return bursts_[target].writable() && burst.beats <= free_[target];
  }
  bool r_valid() const { return r_valid_; }
  bool r_last() const { return r_last_; }

  // What moves in this cycle, by what is there at its beginning: from the channels into the buffer
  // the beat whose turn it is before those of others, and out of it.
  void settle() {
    const int64_t turn = turns_.front().channel;
    takes_ = turns_.readable() && waiting_[turn] > 0;
    takes_last_ = takes_ && position_ + 1 == turns_.front().beats;
    source_ = -1;
    if (channels_[turn].r_valid()) {
      source_ = turn;
    } else {
      for (size_t i = 0; i < channels_.size() && source_ < 0; ++i) {
        if (channels_[i].r_valid()) source_ = static_cast<int64_t>(i);
      }
    }
  }
  bool reads(size_t channel) const { return source_ == static_cast<int64_t>(channel); }

  // `ar` is taken in this cycle, if any; so is the beat on offer, always.
  bool cycle(const Burst* ar, int64_t now) {
    if (!ar && !r_valid_ && turns_.empty()) return false;
    bool changes = ar || r_valid_ || takes_ || source_ >= 0;
    if (source_ >= 0) {
      channels_[source_].take_r();
      ++waiting_[source_];
    }
    if (takes_) {
      const int64_t turn = turns_.front().channel;
      --waiting_[turn];
      ++free_[turn];
      if (takes_last_) turns_.read();
      position_ = takes_last_ ? 0 : position_ + 1;
    }
    r_valid_ = takes_;
    r_last_ = takes_last_;

    for (size_t i = 0; i < channels_.size(); ++i) {
      if (bursts_[i].readable() && channels_[i].ar_ready()) {
        channels_[i].take_ar(bursts_[i].front(), now);
        bursts_[i].read();
      }
    }
    if (ar) {
      const int64_t target = channel_of(config_, ar->address);
      bursts_[target].write(ar->beats);
      turns_.write({target, ar->beats});
      free_[target] -= ar->beats;
    }
    for (auto& bursts : bursts_) changes |= bursts.commit();
    return changes | turns_.commit();
  }

  // For how many cycles, this one included, it does what it has settled to do, if the channels do;
  // `ar` waits, if any.
  int64_t streak(const Burst* ar) const {
    if (r_valid_ != takes_ || r_last_ || takes_last_ || !turns_.settled()) return 1;
    for (size_t i = 0; i < channels_.size(); ++i) {
      if (bursts_[i].readable() && channels_[i].ar_ready()) return 1;
    }
    const int64_t turn = turns_.front().channel;
    if (!takes_) return source_ == turn ? 1 : kNever;
    int64_t cycles = turns_.front().beats - 1 - position_;
    if (source_ != turn) cycles = std::min(cycles, waiting_[turn]);
    if (ar && channel_of(config_, ar->address) == turn) {
      cycles = std::min(cycles, std::max<int64_t>(1, ar->beats - free_[turn]));
    }
    return cycles;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles) {
    if (source_ >= 0) waiting_[source_] += cycles;
    if (!takes_) return;
    const int64_t turn = turns_.front().channel;
    waiting_[turn] -= cycles;
    free_[turn] += cycles;
    position_ += cycles;
  }

 private:
  struct Turn {
    int64_t channel = 0;
    int64_t beats = 0;
  };

  const Config& config_;
  std::vector<Channel>& channels_;
  std::vector<Fifo<int64_t>> bursts_;  // beats of each
  BufferedFifo<Turn> turns_;
  std::vector<int64_t> waiting_, free_;  // beats of each channel
  int64_t position_ = 0;
  bool r_valid_ = false, r_last_ = false;
  // Of this cycle.
  int64_t source_ = -1;  // channel, if any
  bool takes_ = false, takes_last_ = false;
};

class WriteStriper {
 public:
  WriteStriper(const Config& config, std::vector<Channel>& channels)
      : config_(config),
        channels_(channels),
        targets_(kChannelBursts),
        owners_(kChannelBursts),
        bursts_(channels.size(), Fifo<int64_t>(kChannelBursts)),
        beats_(channels.size(), BufferedFifo<Nothing>(config.page_beats)),
        responses_(channels.size(), Fifo<Nothing>(kChannelBursts)) {}

  bool aw_ready() const { return owners_.writable(); }
  bool w_ready() const { return targets_.readable() && beats_[targets_.front()].writable(); }
  bool b_valid() const { return owners_.readable() && responses_[owners_.front()].readable(); }

  // A beat goes to this channel in this cycle.
  bool writes(size_t channel) const {
    return beats_[channel].readable() && channels_[channel].w_ready();
  }

  // `aw` is taken in this cycle, if any, and so is a beat if `w`; the response on offer always is.
  bool cycle(const Burst* aw, bool w, bool w_last, int64_t now) {
    // A burst leaves `owners_` last.
    if (!aw && owners_.empty()) return false;
    bool changes = false;
    if (b_valid()) {
      responses_[owners_.front()].read();
      owners_.read();
    }
    if (w) {
      beats_[targets_.front()].write({});
      if (w_last) targets_.read();
    }
    if (aw) {
      const int64_t target = channel_of(config_, aw->address);
      targets_.write(target);
      owners_.write(target);
      bursts_[target].write(aw->beats);
    }
    for (size_t i = 0; i < channels_.size(); ++i) {
      Channel& channel = channels_[i];
      if (beats_[i].readable() && channel.w_ready()) {
        channel.take_w(now);
        beats_[i].read();
      }
      if (bursts_[i].readable() && channel.aw_ready()) {
        channel.take_aw(bursts_[i].front());
        bursts_[i].read();
      }
      if (channel.b_valid()) {
        channel.take_b();
        responses_[i].write({});
      }
      changes |= beats_[i].commit() | bursts_[i].commit() | responses_[i].commit();
    }
    return changes | targets_.commit() | owners_.commit();
  }

  // For how many cycles, this one included, it does the same if the channels do, and if a beat that
  // isn't the last of its burst comes in each of them or none does.
  int64_t streak(bool w) const {
    if (owners_.empty()) return kNever;
    int64_t cycles = kNever;
    for (size_t i = 0; i < channels_.size(); ++i) {
      const Channel& channel = channels_[i];
      if (channel.b_valid() || (bursts_[i].readable() && channel.aw_ready())) return 1;
      const bool comes = enters(i, w);
      cycles = std::min(cycles, beats_[i].streak(comes, writes(i)));
      if (comes) cycles = std::min(cycles, beats_[i].room());
    }
    return cycles;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles, bool w) {
    if (owners_.empty()) return;
    for (size_t i = 0; i < channels_.size(); ++i) {
      beats_[i].repeat(cycles, enters(i, w), writes(i));
    }
  }

 private:
  bool enters(size_t channel, bool w) const {
    return w && targets_.front() == static_cast<int64_t>(channel);
  }

  const Config& config_;
  std::vector<Channel>& channels_;
  Fifo<int64_t> targets_, owners_;
  std::vector<Fifo<int64_t>> bursts_;
  std::vector<BufferedFifo<Nothing>> beats_;
  std::vector<Fifo<Nothing>> responses_;
};

}  // namespace sat
