// Command processor: `rtl/control/{fetcher,queue,processor}.py`.

#pragma once

#include <array>
#include <vector>

#include "dma.hpp"
#include "fifo.hpp"
#include "gateware.hpp"

namespace sat {

// What a cycle adds to the tokens that a queue has from each other.
using Tokens = std::array<int64_t, kQueues>;

// Reads a program from memory, a word of at least one command at a time.
class Fetcher {
 public:
  Fetcher(const Config& config, int64_t address, int64_t commands)
      : dma_(config),
        prefetched_(kPrefetch),
        word_bytes_(std::max(config.beat_bytes, kCommandBytes)),
        beats_per_word_(word_bytes_ / config.beat_bytes),
        commands_per_word_(word_bytes_ / kCommandBytes),
        address_(address),
        words_left_((commands + commands_per_word_ - 1) / commands_per_word_),
        left_(commands) {}

  ReadDma& dma() { return dma_; }
  // The next command is there.
  bool valid() const { return prefetched_.readable() && left_; }
  // Its place in the program.
  int64_t index() const { return index_; }

  // `beat`: one arrives, always taken; `handed_over`: the next command was, which needs `valid`.
  bool cycle(bool ar_ready, bool beat, bool handed_over) {
    constexpr int64_t kBatch = kPrefetch / 2;
    const int64_t words = std::min(words_left_, kBatch);
    const bool requests = words_left_ && reserved_ <= kPrefetch - kBatch && dma_.descriptor_ready();
    Descriptor descriptor{address_, {beats_per_word_, words, 1, 1}, {word_bytes_, 0, 0}};
    bool changes = dma_.cycle(requests ? &descriptor : nullptr, ar_ready, beat) | handed_over;
    if (requests) {
      words_left_ -= words;
      address_ += words * word_bytes_;
      reserved_ += words;
    }
    if (beat && ++beat_ == beats_per_word_) {
      beat_ = 0;
      prefetched_.write({});
    }
    if (handed_over) {
      ++index_;
      --left_;
      if (++place_ == commands_per_word_ || !left_) {
        place_ = 0;
        prefetched_.read();
        --reserved_;
      }
    }
    return prefetched_.commit() | changes;
  }

 private:
  ReadDma dma_;
  BufferedFifo<Nothing> prefetched_;
  int64_t word_bytes_, beats_per_word_, commands_per_word_;
  int64_t address_, words_left_, left_;
  int64_t reserved_ = 0, beat_ = 0, place_ = 0, index_ = 0;
};

// Tokens, issue in order, completion in order.
class CommandQueue {
 public:
  CommandQueue(const Config& config, int64_t under_way)
      : queued_(config.queue_depth), issued_(under_way) {}

  struct Item {
    Header header{};
    int64_t index = 0;
  };

  bool writable() const { return queued_.writable(); }
  void write(const Item& item) { queued_.write(item); }

  // The command that is issued as soon as its unit is ready, or null.
  const Item* issuable() const {
    return queued_.readable() && !lacks_token() && issued_.writable() ? &queued_.front() : nullptr;
  }
  bool waiting() const { return queued_.readable() && lacks_token(); }
  bool busy() const { return !issued_.empty(); }
  bool empty() const { return queued_.empty() && issued_.empty(); }
  // Of the command issued last.
  int64_t stage() const { return stage_; }
  int64_t opcode() const { return opcode_; }

  // The oldest command issued that ends in this cycle, or null. `done`: of the unit.
  const Item* ending(bool done) const {
    const bool ends = issued_.readable() &&
                      (issued_.front().header.opcode == Opcode::NOP || dones_ || done);
    return ends ? &issued_.front() : nullptr;
  }

  bool cycle(bool issues, bool done, const Tokens& given) {
    const Item* const ended = ending(done);
    bool changes = issues || done || ended;
    dones_ += done - (ended && ended->header.opcode != Opcode::NOP);
    for (int i = 0; i < kQueues; ++i) {
      tokens_[i] += given[i];
      if (issues) tokens_[i] -= queued_.front().header.wait >> i & 1;
      changes |= given[i] != 0;
    }
    if (issues) {
      stage_ = queued_.front().header.stage;
      opcode_ = queued_.front().header.opcode;
      issued_.write(queued_.front());
      queued_.read();
    }
    if (ended) issued_.read();
    return issued_.commit() | queued_.commit() | changes;
  }

 private:
  bool lacks_token() const {
    for (int i = 0; i < kQueues; ++i) {
      if (queued_.front().header.wait >> i & 1 && !tokens_[i]) return true;
    }
    return false;
  }

  BufferedFifo<Item> queued_, issued_;
  Tokens tokens_{};
  int64_t dones_ = 0, stage_ = 0, opcode_ = 0;
};

}  // namespace sat
