// Memory of several channels as one: `rtl/interface/{striping,read_striper,striped_reads,
// write_striper}.py`.
//
// Channels are driven by their owner; these take from them what there is.

#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "fifo.hpp"
#include "gateware.hpp"
#include "memory.hpp"
#include "read_arbiter.hpp"

namespace sat {

constexpr size_t kMostReadPorts = 2;

inline int64_t channel_of(const Config& config, int64_t address) {
  return address / kPageBytes & (config.channels - 1);
}

// Reads of one port of the core.
class ReadStriper {
 public:
  // `port` of those that share the channels by `arbiters`, of which there are none for a single one.
  ReadStriper(const Config& config, std::vector<Channel>& channels,
              const std::vector<ReadArbiter>& arbiters, int port)
      : config_(config),
        channels_(channels),
        arbiters_(arbiters),
        port_(port),
        bursts_(channels.size(), Fifo<Burst>(kChannelBursts)),
        turns_(kStriperBeats),
        waiting_(channels.size()),
        free_(channels.size(), kStriperBeats / config.channels) {}

  bool ar_ready(const Burst& burst) const {
    const int64_t target = channel_of(config_, burst.address);
    return bursts_[target].writable() && burst.beats <= free_[target];
  }
  bool r_valid() const { return r_valid_; }
  bool r_last() const { return r_last_; }
  // The burst that waits for a channel, if any.
  const Burst* offers(size_t channel) const {
    return bursts_[channel].readable() ? &bursts_[channel].front() : nullptr;
  }

  // What moves in this cycle, by what is there at its beginning: from the channels into the buffer
  // the beat whose turn it is before those of others, and out of it.
  void settle(bool r_ready) {
    const int64_t turn = turns_.front().channel;
    step_ = !r_valid_ || r_ready;
    takes_ = step_ && turns_.readable() && waiting_[turn] > 0;
    takes_last_ = takes_ && position_ + 1 == turns_.front().beats;
    source_ = -1;
    if (answers(turn)) {
      source_ = turn;
    } else {
      for (size_t i = 0; i < channels_.size() && source_ < 0; ++i) {
        if (answers(i)) source_ = static_cast<int64_t>(i);
      }
    }
  }
  bool reads(size_t channel) const { return source_ == static_cast<int64_t>(channel); }

  // `ar` is taken in this cycle, if any.
  bool cycle(const Burst* ar) {
    if (!ar && !r_valid_ && turns_.empty()) return false;
    bool changes = ar || (r_valid_ && step_) || takes_ || source_ >= 0;
    if (source_ >= 0) ++waiting_[source_];
    if (takes_) {
      const int64_t turn = turns_.front().channel;
      --waiting_[turn];
      ++free_[turn];
      if (takes_last_) turns_.read();
      position_ = takes_last_ ? 0 : position_ + 1;
    }
    if (step_) {
      r_valid_ = takes_;
      r_last_ = takes_last_;
    }
    for (size_t i = 0; i < channels_.size(); ++i) {
      if (accepts(i)) bursts_[i].read();
    }
    if (ar) {
      const int64_t target = channel_of(config_, ar->address);
      bursts_[target].write(*ar);
      turns_.write({target, ar->beats});
      free_[target] -= ar->beats;
    }
    for (auto& bursts : bursts_) changes |= bursts.commit();
    return changes | turns_.commit();
  }

  // For how many cycles, this one included, it does what it has settled to do, if all around it do;
  // `ar` waits, if any.
  int64_t streak(const Burst* ar) const {
    if (!turns_.settled()) return 1;
    for (size_t i = 0; i < channels_.size(); ++i) {
      if (accepts(i)) return 1;
    }
    if (!step_) return kNever;
    if (r_valid_ != takes_ || r_last_ || takes_last_) return 1;
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

  // A channel has a beat for this port.
  bool answers(size_t channel) const {
    return channels_[channel].r_valid() &&
           (arbiters_.empty() || arbiters_[channel].owner() == port_);
  }
  // The burst that waits for a channel is taken in this cycle.
  bool accepts(size_t channel) const {
    return bursts_[channel].readable() && (arbiters_.empty() ? channels_[channel].ar_ready()
                                                             : arbiters_[channel].grants(port_));
  }

  const Config& config_;
  std::vector<Channel>& channels_;
  const std::vector<ReadArbiter>& arbiters_;
  int port_;
  std::vector<Fifo<Burst>> bursts_;
  BufferedFifo<Turn> turns_;
  std::vector<int64_t> waiting_, free_;  // beats of each channel
  int64_t position_ = 0;  // of the next beat within its burst
  bool r_valid_ = false, r_last_ = false;
  // Of this cycle.
  int64_t source_ = -1;  // channel, if any
  bool step_ = true, takes_ = false, takes_last_ = false;
};

// The read ports of the core, a striper each; if there are several, an arbiter at each channel.
class StripedReads {
 public:
  using Bursts = std::array<const Burst*, kMostReadPorts>;

  StripedReads(const Config& config, std::vector<Channel>& channels) : channels_(channels) {
    if (config.read_ports > 1) {
      const int64_t bursts = config.read_ports * kStriperBeats / config.channels;
      arbiters_.assign(channels.size(), ReadArbiter(bursts));
    }
    for (int port = 0; port < config.read_ports; ++port) {
      stripers_.emplace_back(config, channels, arbiters_, port);
    }
  }
  StripedReads(const StripedReads&) = delete;

  ReadStriper& operator[](int port) { return stripers_[port]; }
  // A beat is read from this channel in this cycle.
  bool reads(size_t channel) const {
    return std::any_of(stripers_.begin(), stripers_.end(),
                       [=](const ReadStriper& striper) { return striper.reads(channel); });
  }

  // Whose bursts go to the channels in this cycle; then the stripers settle.
  void settle() {
    for (size_t i = 0; i < arbiters_.size(); ++i) {
      ReadArbiter::Offers offers{};
      for (size_t port = 0; port < stripers_.size(); ++port) offers[port] = stripers_[port].offers(i);
      arbiters_[i].settle(offers, channels_[i].ar_ready());
    }
  }

  // `ars`: the bursts that are taken in this cycle.
  bool cycle(const Bursts& ars, int64_t now) {
    bool changes = false;
    for (size_t i = 0; i < channels_.size(); ++i) {
      Channel& channel = channels_[i];
      const bool r = reads(i), r_last = r && channel.r_last(), ar_ready = channel.ar_ready();
      const Burst* const ar = arbiters_.empty() ? stripers_[0].offers(i) : arbiters_[i].ar();
      if (r) channel.take_r();
      if (ar && ar_ready) channel.take_ar(ar->beats, now);
      if (!arbiters_.empty()) changes |= arbiters_[i].cycle(ar_ready, r_last);
    }
    for (size_t port = 0; port < stripers_.size(); ++port) {
      changes |= stripers_[port].cycle(ars[port]);
    }
    return changes;
  }

  // For how many cycles, this one included, they do what they have settled to do, if the channels
  // do; `ars` wait, if any.
  int64_t streak(const Bursts& ars) const {
    int64_t cycles = kNever;
    for (size_t port = 0; port < stripers_.size() && cycles > 1; ++port) {
      cycles = std::min(cycles, stripers_[port].streak(ars[port]));
    }
    for (size_t i = 0; i < arbiters_.size() && cycles > 1; ++i) {
      const Channel& channel = channels_[i];
      const bool r_last = reads(i) && channel.r_last();
      cycles = std::min(cycles, arbiters_[i].streak(channel.ar_ready(), r_last));
    }
    return cycles;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles) {
    for (ReadStriper& striper : stripers_) striper.repeat(cycles);
  }

 private:
  std::vector<Channel>& channels_;
  std::vector<ReadArbiter> arbiters_;
  std::vector<ReadStriper> stripers_;
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
