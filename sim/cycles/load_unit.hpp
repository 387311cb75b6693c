// LOAD: `rtl/memory/{load_unit,framer,transposer,placer}.py`.

#pragma once

#include "dma.hpp"
#include "gateware.hpp"

namespace sat {

// Beats of zeros around those from memory, one framing after the other.
class Framer {
 public:
  bool active() const { return left_ != 0; }
  bool last() const { return left_ == 1; }
  // The next beat to leave is one of zeros.
  bool zero() const { return zero_; }

  void begin(const Frame& frame, bool framed, int64_t beats) {
    framed_ = framed;
    left_ = beats;
    beat_.begin(frame.before, frame.beats, frame.after);
    line_.begin(frame.above, frame.lines, frame.below);
    zero_ = framed && (frame.before || frame.above);
  }

  void take() {
    --left_;
    if (!framed_) return;
    if (beat_.advance()) line_.advance();
    zero_ = left_ && (beat_.outside() || line_.outside());
  }

  // How many beats, taken one after the other, neither change their kind nor are the last.
  int64_t streak() const {
    return framed_ ? std::min(left_, beat_.to_boundary()) - 1 : left_ - 1;
  }
  void take(int64_t beats) {
    left_ -= beats;
    if (framed_) beat_.place += beats;
  }

 private:
  // A place along one side: before, in or after what comes from memory.
  struct Side {
    int64_t first = 0, count = 0, end = 0, place = 0;

    void begin(int64_t before, int64_t inside, int64_t after) {
      place = first = -before;
      count = inside;
      end = inside + after;
    }
    bool advance() {
      if (++place < end) return false;
      place = first;
      return true;
    }
    bool outside() const { return place < 0 || place >= count; }
    int64_t to_boundary() const { return (place < 0 ? 0 : place < count ? count : end) - place; }
  };

  bool framed_ = false, zero_ = false;
  int64_t left_ = 0;
  Side beat_, line_;
};

// Takes G beats of a matrix while the one before leaves.
class Transposer {
 public:
  explicit Transposer(const Config& config) : size_(config.elements) {}

  bool i_ready() const { return !full_[write_half_]; }
  bool o_valid() const { return o_valid_; }

  bool cycle(bool write, bool o_ready) {
    const bool advance = !o_valid_ || o_ready;
    const bool read = advance && full_[read_half_];
    const bool changes = write || (advance && (read || fetched_ || o_valid_));
    if (write && ++written_ == size_) {
      written_ = 0;
      full_[write_half_] = true;
      write_half_ ^= 1;
    }
    if (read && ++read_ == size_) {
      read_ = 0;
      full_[read_half_] = false;
      read_half_ ^= 1;
    }
    if (advance) {
      o_valid_ = fetched_;
      fetched_ = read;
    }
    return changes;
  }

  // For how many cycles it stays as ready, if a beat is written, or taken, in each of them.
  int64_t streak(bool writes, bool o_ready) const {
    int64_t cycles = writes ? size_ - 1 - written_ : kNever;
    if (!o_valid_ || o_ready) {
      const bool read = full_[read_half_];
      if (read != fetched_ || fetched_ != o_valid_) return 1;
      if (read) cycles = std::min(cycles, size_ - 1 - read_);
    }
    return cycles;
  }
  void repeat(int64_t cycles, bool writes, bool o_ready) {
    if (writes) written_ += cycles;
    if (full_[read_half_] && (!o_valid_ || o_ready)) read_ += cycles;
  }

 private:
  int64_t size_, written_ = 0, read_ = 0;
  int write_half_ = 0, read_half_ = 0;
  bool full_[2] = {}, fetched_ = false, o_valid_ = false;
};

// Checks each LOAD, reads what its descriptor names, frames, transposes and places it.
class LoadUnit {
 public:
  explicit LoadUnit(const Config& config)
      : config_(config), dma_(config), transposer_(config) {}

  const ReadDma& dma() const { return dma_; }
  bool command_ready() const { return state_ == State::kWaitForCommand; }
  // A command has ended.
  bool done() const { return done_; }

  // The path of this cycle, by what is there at its beginning: `beat`, one from memory; the vector
  // unit or the update unit takes one.
  void settle(bool beat, bool stream_ready, bool state_ready) {
    const bool placer_ready =
        left_ && (to_stream_ ? stream_ready : !to_state_ || state_ready);
    const bool framed = framer_.active() && (framer_.zero() || beat);
    const bool o_ready = feeds_transposer_ ? transposer_.i_ready()
                                           : placer_ready && !from_transposer_;
    leaves_framer_ = framed && o_ready;
    enters_transposer_ = leaves_framer_ && feeds_transposer_;
    const bool placed = from_transposer_ ? transposer_.o_valid() : framed && !feeds_transposer_;
    places_ = placed && placer_ready;
    leaves_transposer_ = places_ && from_transposer_;
    takes_beat_ = leaves_framer_ && !framer_.zero();
    offers_ = placed && left_;
  }
  // The vector unit, or the update unit, is offered a beat.
  bool offers_stream() const { return offers_ && to_stream_; }
  bool offers_state() const { return offers_ && to_state_; }
  // The path takes the beat from memory.
  bool takes_beat() const { return takes_beat_; }

  bool cycle(const LoadBody* command, bool ar_ready, int64_t now) {
    bool changes = command || done_ || leaves_framer_ || places_;
    const bool framer_ready = !framer_.active() || (leaves_framer_ && framer_.last());
    const bool placer_ready = !left_;
    const bool descriptor = state_ == State::kIssueDescriptor && dma_.descriptor_ready();

    if (leaves_framer_) framer_.take();
    changes |= transposer_.cycle(enters_transposer_, leaves_transposer_);
    done_ = places_ && left_ == 1;
    left_ -= places_;
    changes |= dma_.cycle(descriptor ? &body_.descriptor : nullptr, ar_ready, takes_beat_);

    switch (state_) {
      case State::kWaitForCommand:
        if (command) {
          body_ = *command;
          state_ = State::kCheck;
          checked_ = now + kLoadCheckCycles;
        }
        break;
      case State::kCheck:
        if (now >= checked_) {
          state_ = State::kIssueDescriptor;
          changes = true;
        }
        break;
      case State::kIssueDescriptor:
        if (descriptor) state_ = State::kHandOverFraming;
        break;
      case State::kHandOverFraming:
        if (framer_ready) {
          const Frame& frame = body_.frame;
          framer_.begin(frame, frame.images != 0, beats());
          feeds_transposer_ = body_.transpose;
          state_ = State::kHandOverPlacement;
          changes = true;
        }
        break;
      case State::kHandOverPlacement:
        if (placer_ready) {
          left_ = beats();
          to_stream_ = body_.target == LoadTarget::STREAM;
          to_state_ = body_.target == LoadTarget::STATE;
          from_transposer_ = body_.transpose;
          state_ = State::kWaitForCommand;
          changes = true;
        }
        break;
    }
    return changes;
  }

  int64_t next_event() const { return state_ == State::kCheck ? checked_ : kNever; }

  // For how many cycles, this one included, the path does what it has settled to do, if all around
  // it does.
  int64_t streak(int64_t now) const {
    const bool hands_over = (state_ == State::kIssueDescriptor && dma_.descriptor_ready()) ||
                            (state_ == State::kHandOverFraming && !framer_.active()) ||
                            (state_ == State::kHandOverPlacement && !left_);
    if (done_ || hands_over) return 1;
    int64_t cycles = std::min(next_event() - now, dma_.streak(takes_beat_));
    cycles = std::min(cycles, transposer_.streak(enters_transposer_, leaves_transposer_));
    if (leaves_framer_) cycles = std::min(cycles, framer_.streak());
    if (places_) cycles = std::min(cycles, left_ - 1);
    return cycles;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles) {
    if (takes_beat_) dma_.repeat(cycles);
    transposer_.repeat(cycles, enters_transposer_, leaves_transposer_);
    if (leaves_framer_) framer_.take(cycles);
    if (places_) left_ -= cycles;
  }

 private:
  enum class State {
    kWaitForCommand, kCheck, kIssueDescriptor, kHandOverFraming, kHandOverPlacement,
  };

  // Of the operand, zeros and indices included.
  int64_t beats() const {
    const bool to_s = body_.target == LoadTarget::S;
    const int64_t rows = to_s ? body_.rows / config_.elements : body_.rows;
    return rows * body_.d_words * (to_s ? config_.tile_beats[body_.pattern] : 1);
  }

  const Config& config_;
  ReadDma dma_;
  Framer framer_;
  Transposer transposer_;
  State state_ = State::kWaitForCommand;
  LoadBody body_{};
  int64_t checked_ = 0;
  int64_t left_ = 0;  // beats that the placer has yet to take
  bool to_stream_ = false, to_state_ = false, done_ = false;
  bool feeds_transposer_ = false, from_transposer_ = false;
  // Handshakes of this cycle.
  bool leaves_framer_ = false, enters_transposer_ = false, leaves_transposer_ = false;
  bool places_ = false, takes_beat_ = false, offers_ = false;
};

}  // namespace sat
