// STORE: `rtl/memory/{store_unit,result_walk}.py`.

#pragma once

#include "compressor.hpp"
#include "gateware.hpp"

namespace sat {

// Checks each STORE and streams its O words through the epilogue, one a cycle.
class StoreUnit {
 public:
  explicit StoreUnit(const Config& config)
      : config_(config), ready_beats_(kStoreReadyBeats) {}

  bool command_ready() const { return state_ == State::kWaitForCommand; }
  const Descriptor* descriptor() const {
    return state_ == State::kIssueDescriptor ? &body_.descriptor : nullptr;
  }
  bool data_valid() const {
    return body_.compress ? compressor_.o_valid() : ready_beats_.readable();
  }
  // A command's last beat was handed over in the cycle before.
  bool done() const { return done_; }

  // `o_free`: the cycle from which on the O scratchpad can be read.
  bool cycle(const StoreBody* command, bool descriptor_ready, bool data_ready, int64_t o_free,
             int64_t now) {
    waits_until_ = kNever;
    if (!command && command_ready() && !done_) return false;
    const bool data_taken = data_valid() && data_ready;
    const bool begins_beat = !body_.compress && (!body_.convert || !upper_);
    const bool begins_tile = body_.compress && tile_word_ == 0;
    const bool reads = words_left_ && (!begins_beat || reserved_ != kStoreReadyBeats) &&
                       (!begins_tile || compressor_.free());
    const bool read = reads && o_free <= now;
    if (reads && !read) waits_until_ = o_free;
    const bool arrives = travelling_.at(kStoreTravel);
    bool changes = command || data_taken || read || done_;
    done_ = false;

    // Words through the epilogue; of two that are converted, the second makes a beat.
    changes |= travelling_.commit(read, kStoreTravel);
    const bool beat = arrives && !body_.compress && (!body_.convert || second_);
    if (arrives) second_ = !second_;
    if (beat) ready_beats_.write({});
    if (data_taken && !body_.compress) ready_beats_.read();
    reserved_ += (read && begins_beat) - (data_taken && !body_.compress);
    changes |= compressor_.cycle(read && begins_tile, arrives && body_.compress,
                                 data_ready && body_.compress);
    changes |= ready_beats_.commit();
    if (read) {
      --words_left_;
      upper_ = !upper_;
      if (++tile_word_ == kWordsPerRow * config_.elements) tile_word_ = 0;
    }

    switch (state_) {
      case State::kWaitForCommand:
        if (command) {
          body_ = *command;
          checked_ = now + kStoreCheckCycles;
          state_ = State::kCheck;
        }
        break;
      case State::kCheck:
        if (now >= checked_) {
          state_ = State::kIssueDescriptor;
          changes = true;
        }
        break;
      case State::kIssueDescriptor:
        if (descriptor_ready) {
          begin();
          state_ = State::kStream;
          changes = true;
        }
        break;
      case State::kStream:
        if (data_taken && --beats_left_ == 0) {
          done_ = true;
          state_ = State::kWaitForCommand;
        }
        break;
    }
    return changes;
  }

  int64_t next_event() const { return state_ == State::kCheck ? checked_ : waits_until_; }

 private:
  enum class State { kWaitForCommand, kCheck, kIssueDescriptor, kStream };

  void begin() {
    words_left_ = body_.rows * body_.words;
    beats_left_ = body_.convert ? words_left_ / kWordsPerRow : words_left_;
    if (body_.compress) {
      beats_left_ = beats_left_ / config_.elements * config_.tile_beats[body_.pattern];
    }
    upper_ = second_ = false;
    tile_word_ = 0;
    const int64_t tile_words = kWordsPerRow * config_.elements;
    compressor_.begin_command(tile_words, config_.tile_beats[body_.pattern]);
  }

  const Config& config_;
  TileCompressor compressor_;
  BufferedFifo<Nothing> ready_beats_;
  DelayLine travelling_;
  State state_ = State::kWaitForCommand;
  StoreBody body_{};
  int64_t checked_ = 0, words_left_ = 0, beats_left_ = 0, reserved_ = 0, tile_word_ = 0;
  int64_t waits_until_ = kNever;  // for the O scratchpad
  bool upper_ = false, second_ = false, done_ = false;
};

}  // namespace sat
