// Queues with the timing of those of the gateware, amaranth.lib.fifo.
//
// Whatever is asked of a queue in a cycle tells its state at the beginning of that cycle; reads and
// writes take effect at `commit`.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sat {

constexpr int64_t kNever = INT64_MAX / 2;

// Where an item doesn't matter, only that there is one.
struct Nothing {};

// SyncFIFO: what is written can be read in the next cycle.
template <class Item>
class Fifo {
 public:
  explicit Fifo(int64_t depth) : items_(depth), depth_(depth) {}

  bool writable() const { return level_ < depth_; }
  bool readable() const { return level_ > 0; }
  bool empty() const { return level_ == 0; }
  const Item& front() const { return items_[first_]; }

  void write(const Item& item) {
    int64_t place = first_ + level_;
    items_[place >= depth_ ? place - depth_ : place] = item;
    written_ = true;
  }
  void read() { read_ = true; }

  bool commit() {
    if (!written_ && !read_) return false;
    level_ += written_ - read_;
    if (read_ && ++first_ == depth_) first_ = 0;
    written_ = read_ = false;
    return true;
  }

 private:
  std::vector<Item> items_;
  int64_t depth_, level_ = 0, first_ = 0;
  bool written_ = false, read_ = false;
};

// SyncFIFOBuffered: one more cycle, through a register at the output.
template <class Item>
class BufferedFifo {
 public:
  explicit BufferedFifo(int64_t depth) : items_(depth), inner_depth_(depth - 1) {}

  bool writable() const { return inner_depth_ ? inner_ < inner_depth_ : !out_; }
  bool readable() const { return out_; }
  bool empty() const { return !inner_ && !out_; }
  // Nothing is on its way to the output.
  bool settled() const { return out_ || !inner_; }
  // What is at the output, or was there last.
  const Item& front() const { return output_; }

  void write(const Item& item) {
    int64_t place = first_ + inner_;
    items_[place >= size() ? place - size() : place] = item;
    written_ = true;
  }
  void read() { read_ = true; }

  bool commit() {
    const bool advances = inner_ && (!out_ || read_);
    if (!written_ && !read_ && !advances) return false;
    if (inner_depth_ == 0) {
      if (written_) output_ = items_[first_];
      out_ = written_ || (out_ && !read_);
    } else {
      if (advances) {
        output_ = items_[first_];
        if (++first_ == size()) first_ = 0;
      }
      out_ = advances || (out_ && !read_);
      inner_ += written_ - advances;
    }
    written_ = read_ = false;
    return true;
  }

 private:
  int64_t size() const { return static_cast<int64_t>(items_.size()); }

  std::vector<Item> items_;
  Item output_{};
  int64_t inner_depth_, inner_ = 0, first_ = 0;
  bool out_ = false, written_ = false, read_ = false;
};

// The same, at least two deep, where only the number of items matters.
template <>
class BufferedFifo<Nothing> {
 public:
  explicit BufferedFifo(int64_t depth) : inner_depth_(depth - 1) {}

  bool writable() const { return inner_ < inner_depth_; }
  int64_t room() const { return inner_depth_ - inner_; }
  bool readable() const { return out_; }
  bool empty() const { return !inner_ && !out_; }

  void write(Nothing) { written_ = true; }
  void read() { read_ = true; }

  bool commit() {
    const bool advances = inner_ && (!out_ || read_);
    if (!written_ && !read_ && !advances) return false;
    out_ = advances || (out_ && !read_);
    inner_ += written_ - advances;
    written_ = read_ = false;
    return true;
  }

  // For how many cycles it is as readable as it is now, if it's written or read in each of them.
  // Whoever writes has reserved room.
  int64_t streak(bool writes, bool reads) const {
    if (!out_) return inner_ || writes ? 1 : kNever;
    if (!reads) return kNever;
    return writes && inner_ ? kNever : inner_ + 1;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles, bool writes, bool reads) {
    inner_ += cycles * (writes - reads);
    if (inner_ < 0) {
      inner_ = 0;
      out_ = false;
    }
  }

 private:
  int64_t inner_depth_, inner_ = 0;
  bool out_ = false, written_ = false, read_ = false;
};

// Bits that travel, one stage a cycle.
class DelayLine {
 public:
  // Whether a bit has travelled for so many cycles.
  bool at(int cycles) const { return bits_ >> (cycles - 1) & 1; }
  // Whether the bit that enters has entered as often as there are stages.
  bool is_full_of(bool bit, int stages) const {
    return bits_ == (bit ? (uint64_t{1} << stages) - 1 : 0);
  }
  // What is given enters, what is behind `stages` is gone.
  bool commit(bool bit, int stages) {
    const bool active = bit || bits_;
    bits_ = (bits_ << 1 | bit) & ((uint64_t{1} << stages) - 1);
    return active;
  }

 private:
  uint64_t bits_ = 0;
};

}  // namespace sat
