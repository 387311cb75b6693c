// COMPUTE: `rtl/engine/{checker,mapper,tally,tensor_engine}.py`.
//
// Nothing that happens during a product holds it up but sums of products before it that have yet to
// leave. So all of its slots are known as it is taken, tile by tile.

#pragma once

#include <algorithm>
#include <deque>
#include <vector>

#include "gateware.hpp"
#include "memory.hpp"

namespace sat {

// Checks each COMPUTE while the one before is multiplied, and counts what its slots are good for.
class TensorEngine {
 public:
  // What the array does in a cycle.
  enum class Slots { kNone, kMultiply, kDrain };

  explicit TensorEngine(const Config& config)
      : config_(config),
        drained_{std::vector<int64_t>(config.interleave, -1),
                 std::vector<int64_t>(config.interleave, -1)} {}

  bool command_ready() const { return state_ == State::kWaitForCommand; }
  // A command has ended, in order.
  bool done(int64_t now) const { return !ends_.empty() && ends_.front() == now; }
  bool busy() const { return !ends_.empty() || !command_ready(); }

  // What the array does in this cycle, until `slots_end`.
  Slots slots(int64_t now) {
    while (!periods_.empty() && periods_.front().end <= now) periods_.pop_front();
    if (!periods_.empty() && periods_.front().start <= now) {
      slots_end_ = periods_.front().end;
      return periods_.front().slots;
    }
    slots_end_ = periods_.empty() ? kNever : periods_.front().start;
    if (!leaving(now - 1)) return Slots::kNone;
    slots_end_ = drain_end_ + 2;
    return Slots::kDrain;
  }
  int64_t slots_end() const { return slots_end_; }
  // Part of a training step that a slot which multiplies belongs to.
  int64_t stage() const { return periods_.front().stage; }

  // The cycle from which on the O scratchpad can be read, this one unless results that are added to
  // others read it.
  int64_t o_free(int64_t now) {
    while (!addend_reads_.empty() && addend_reads_.front().end <= now) addend_reads_.pop_front();
    const bool reads = !addend_reads_.empty() && addend_reads_.front().start <= now;
    return reads ? addend_reads_.front().end : now;
  }

  int64_t useful() const { return useful_; }
  int64_t edge() const { return edge_; }
  int64_t filler() const { return filler_; }

  bool cycle(const ComputeBody* command, int64_t stage, int64_t now) {
    bool changes = command;
    if (done(now)) {
      ends_.pop_front();
      changes = true;
    }
    switch (state_) {
      case State::kWaitForCommand:
        if (command) {
          body_ = *command;
          stage_ = stage;
          checked_ = now + kComputeCheckCycles;
          state_ = State::kCheck;
        }
        break;
      case State::kCheck:
        // The mapper takes a product with the last slot of the one before, or at once. The writer
        // of results has room for as many as can be under way.
        if (now >= std::max(checked_, last_slot_)) {
          lay_out(now);
          state_ = State::kWaitForCommand;
          changes = true;
        }
        break;
    }
    return changes;
  }

  int64_t next_event() const {
    int64_t next = ends_.empty() ? kNever : ends_.front();
    if (state_ == State::kCheck) next = std::min(next, std::max(checked_, last_slot_));
    return next;
  }

 private:
  enum class State { kWaitForCommand, kCheck };

  struct Period {
    int64_t start, end;
    Slots slots;
    int64_t stage;
  };

  struct Span {
    int64_t start, end;
  };

  // Behind the slots of the last product, its sums leave.
  bool leaving(int64_t cycle) const { return last_slot_ < cycle && cycle <= drain_end_; }

  // Lays out all slots of the product that the mapper takes in cycle `now`.
  void lay_out(int64_t now) {
    const int64_t contexts = config_.interleave;
    const int64_t steps = config_.pattern_steps[body_.pattern];
    const int64_t words = body_.d_words * steps;
    const int64_t tiles = body_.a_tiles * body_.b_tiles;
    period(std::max(last_slot_ + 1, now - 1), std::min(now, drain_end_) + 1, Slots::kDrain);
    int64_t slot = now + 1;  // the next one, unless it has to wait
    for (int64_t tile = 0; tile < tiles; ++tile) {
      for (int64_t left = words; left;) {
        // The words until the lanes' bins are full, or the reduction ends.
        const int64_t taken = std::min(left, config_.bin_additions - words_);
        left -= taken;
        const bool ends_sum = !left && !body_.keep;
        // The last word of sums that are kept begins when all others have left.
        const bool waits = !left && body_.keep;
        const int64_t before = taken - waits;
        if (before) {
          slot = words_ ? multiply(slot, contexts) : first_word(slot);
          slot = multiply(slot, (before - 1) * contexts);
        }
        if (waits) {
          slot = wait(slot, drain_end_ + 1);
          slot = words_ || before ? multiply(slot, contexts) : first_word(slot);
        }
        words_ += taken;
        if (ends_sum || words_ == config_.bin_additions) {
          drain(slot - 1, ends_sum);
          kept_ = !ends_sum;
          words_ = 0;
          half_ ^= 1;
        }
      }
    }
    last_slot_ = slot - 1;
    if (!body_.keep) product_end_ = drain_end_;
    ends_.push_back((body_.keep ? last_slot_ : drain_end_) + 1 + config_.result_latency);
    count(tiles * words * contexts, steps);
  }

  // Slots of the first word of a half of the bins, each after that context's sum has left it.
  int64_t first_word(int64_t slot) {
    for (const int64_t drained : drained_[half_]) {
      slot = multiply(wait(slot, drained + 1), 1);
    }
    return slot;
  }

  int64_t multiply(int64_t slot, int64_t slots) {
    period(slot, slot + slots, Slots::kMultiply);
    return slot + slots;
  }

  int64_t wait(int64_t slot, int64_t until) {
    period(slot, until, Slots::kDrain);
    return std::max(slot, until);
  }

  // The drain of a half whose last slot is given. What it is added to must have been written.
  void drain(int64_t last, bool ends_sum) {
    const int64_t cycles = kAccumulatorBins * (config_.drain_turns + kept_);
    int64_t at = std::max(last + 1 + config_.drain_delay, drain_end_ + 1);
    if (body_.accumulate) at = std::max(at, product_end_ + 1 + config_.settling_cycles);
    for (int64_t& drained : drained_[half_]) {
      at += cycles;
      drained = at - 1;
      if (body_.accumulate && ends_sum) read_addends(drained);
    }
    drain_end_ = at - 1;
  }

  // The reads for the outputs of a context, whose drain ends in the cycle given.
  void read_addends(int64_t drained) {
    const int64_t start = drained + config_.addend_latency;
    const int64_t end = start + config_.rows + config_.cols - 1;
    if (!addend_reads_.empty() && addend_reads_.back().end >= start) {
      addend_reads_.back().end = end;
    } else {
      addend_reads_.push_back({start, end});
    }
  }

  // The counters see slots a cycle late.
  void period(int64_t start, int64_t end, Slots slots) {
    if (start >= end) return;
    ++start, ++end;
    if (!periods_.empty() && periods_.back().end == start && periods_.back().slots == slots &&
        periods_.back().stage == stage_) {
      periods_.back().end = end;
    } else {
      periods_.push_back({start, end, slots, stage_});
    }
  }

  // Counts the products of all slots of this one: useful, padding, or left out.
  void count(int64_t slots, int64_t steps) {
    const int64_t a = (body_.a_tiles * config_.rows << body_.a_contexts) - body_.a_padding;
    const int64_t b =
        body_.b_tiles * config_.cols * (config_.interleave >> body_.a_contexts) - body_.b_padding;
    const int64_t entries =
        std::min<int64_t>(config_.pattern_entries[body_.pattern], config_.lanes_per_chunk);
    const int64_t active = entries * config_.chunks;
    int64_t lanes = body_.d_words * steps * active;
    if (body_.tail_chunks || body_.tail_entries) {
      for (int64_t step = 0; step < steps; ++step) {
        const int64_t entries_left = body_.tail_entries - step * config_.lanes_per_chunk;
        const int64_t tail = std::clamp<int64_t>(entries_left, 0, entries);
        lanes += body_.tail_chunks * entries + tail - active;
      }
    }
    const int64_t elements = config_.rows * config_.cols;
    useful_ += a * b * lanes;
    edge_ += slots * active * elements - a * b * lanes;
    filler_ += slots * (config_.macs - active * elements);
  }

  const Config& config_;
  State state_ = State::kWaitForCommand;
  ComputeBody body_{};
  int64_t stage_ = 0;
  int64_t checked_ = 0;
  int64_t last_slot_ = -1;           // of the last product
  int64_t drain_end_ = -1;           // last cycle of the last drain
  int64_t product_end_ = INT64_MIN / 2;  // and of the last that ended a product
  std::vector<int64_t> drained_[2];  // of each half, last cycle of each context's drain
  int half_ = 0;
  int64_t words_ = 0;                // in the half that takes products
  bool kept_ = false;                // some of this sum has been drained already
  std::deque<int64_t> ends_;
  std::deque<Period> periods_;
  std::deque<Span> addend_reads_;
  int64_t slots_end_ = kNever;
  int64_t useful_ = 0, edge_ = 0, filler_ = 0;
};

}  // namespace sat
