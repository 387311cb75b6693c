// Card memory: latency and bandwidth of each channel, as `sim/verilated/harness.cpp` has them.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "fifo.hpp"
#include "gateware.hpp"

namespace sat {

struct Burst {
  int64_t address = 0;
  int64_t beats = 0;
};

// What waits at a channel, in order.
template <class Item, size_t kDepth>
class Line {
 public:
  bool empty() const { return first_ == end_; }
  bool full() const { return end_ - first_ == kDepth; }
  Item& front() { return items_[first_ % kDepth]; }
  const Item& front() const { return items_[first_ % kDepth]; }
  void push(const Item& item) { items_[end_++ % kDepth] = item; }
  void pop() { ++first_; }

 private:
  std::array<Item, kDepth> items_{};
  size_t first_ = 0, end_ = 0;
};

// One AXI channel. What it offers in a cycle is settled by `drive`; then the handshakes are told.
class Channel {
 public:
  explicit Channel(const Timing& timing)
      : latency_(timing.latency), bandwidth_(timing.bandwidth), credit_(kBurstCredit) {}

  void drive(int64_t now) {
    if (idle()) {
      ar_ready_ = aw_ready_ = true;
      r_valid_ = w_ready_ = b_valid_ = false;
      return;
    }
    if (credit_ < kBurstCredit) {
      const int64_t cycles = now - driven_;
      credit_ = std::min(credit_ + cycles * bandwidth_, kBurstCredit);
    }
    driven_ = now;
    if (!reads_.empty() && reads_.front().ready <= now && credit_ >= kBeatCost) {
      r_valid_ = true;
    }
    w_ready_ = !writes_.empty() && credit_ >= kBeatCost;
    b_valid_ = !responses_.empty() && responses_.front() <= now;
    ar_ready_ = !reads_.full();
    aw_ready_ = !writes_.full();
  }

  bool ar_ready() const { return ar_ready_; }
  bool aw_ready() const { return aw_ready_; }
  bool r_valid() const { return r_valid_; }
  bool r_last() const { return reads_.front().beats == 1; }
  bool w_ready() const { return w_ready_; }
  bool b_valid() const { return b_valid_; }

  // Nothing is under way.
  bool idle() const { return reads_.empty() && writes_.empty() && responses_.empty(); }

  // Handshakes.
  void take_r() {
    r_valid_ = false;
    credit_ -= kBeatCost;
    if (--reads_.front().beats == 0) reads_.pop();
  }
  void take_w(int64_t now) {
    credit_ -= kBeatCost;
    if (--writes_.front() == 0) {
      writes_.pop();
      responses_.push(now + latency_);
    }
  }
  void take_ar(int64_t beats, int64_t now) { reads_.push({beats, now + latency_}); }
  void take_aw(int64_t beats) { writes_.push(beats); }
  void take_b() { responses_.pop(); }

  // For how many cycles, this one included, it offers the same, if a beat is read or written in
  // each of them.
  int64_t streak(int64_t now, bool reads, bool writes) const {
    if (b_valid_ || credit_ < kBeatCost) return 1;
    int64_t cycles = responses_.empty() ? kNever : responses_.front() - now;
    if (reads) {
      cycles = std::min(cycles, reads_.front().beats - 1);
    } else if (!reads_.empty() && !r_valid_) {
      cycles = std::min(cycles, reads_.front().ready - now);
    }
    if (writes) cycles = std::min(cycles, writes_.front() - 1);
    const int64_t spent = kBeatCost * (reads + writes) - bandwidth_;
    if (spent > 0) cycles = std::min(cycles, (credit_ - kBeatCost) / spent + 1);
    return cycles;
  }
  // So many such cycles at once.
  void repeat(int64_t now, int64_t cycles, bool reads, bool writes) {
    const int64_t cost = kBeatCost * (reads + writes);
    credit_ = std::min(credit_ + (cycles - 1) * (bandwidth_ - cost), kBurstCredit) - cost;
    driven_ = now + cycles - 1;
    if (reads) {
      reads_.front().beats -= cycles;
      r_valid_ = false;
    }
    if (writes) writes_.front() -= cycles;
  }

  // The next cycle in which it may offer something that it doesn't offer in this one.
  int64_t next_event(int64_t now) const {
    int64_t next = kNever;
    int64_t credit = kNever;
    if (credit_ < kBeatCost) credit = now + (kBeatCost - credit_ + bandwidth_ - 1) / bandwidth_;
    if (!reads_.empty() && !r_valid_) {
      next = reads_.front().ready > now ? reads_.front().ready : credit;
    }
    if (!writes_.empty()) next = std::min(next, credit);
    if (!responses_.empty() && responses_.front() > now) {
      next = std::min(next, responses_.front());
    }
    return next;
  }

 private:
  struct Read {
    int64_t beats;
    int64_t ready;  // cycle of its first beat at the earliest
  };

  static constexpr size_t kQueue = 64;
  static constexpr int64_t kBeatCost = 1024;
  static constexpr int64_t kBurstCredit = 16 * kBeatCost;

  int64_t latency_, bandwidth_, credit_;
  int64_t driven_ = 0;
  Line<Read, kQueue> reads_;
  Line<int64_t, kQueue> writes_;         // beats
  Line<int64_t, 2 * kQueue> responses_;  // when
  bool ar_ready_ = false, aw_ready_ = false, r_valid_ = false, w_ready_ = false, b_valid_ = false;
};

}  // namespace sat
