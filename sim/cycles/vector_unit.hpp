// VECTOR: `rtl/vector/{vector_unit,intake,sequencer,writer}.py`.

#pragma once

#include "fifo.hpp"
#include "gateware.hpp"
#include "memory.hpp"

namespace sat {

// Takes the beats of a command's tiles, or reads registers, and issues slices of rows.
class VectorIntake {
 public:
  explicit VectorIntake(const Config& config)
      : elements_(config.elements), slices_(config.vector_slices) {}

  bool idle() const { return state_ == State::kWaitForStart; }
  bool begins_row() const { return slice_ == 0; }
  bool begins_tile() const { return row_ == 0 && begins_row(); }
  bool last_tile() const { return tile_ + 1 == body_->window; }
  // The next slice of its tile.
  int64_t place() const { return row_ * slices_ + slice_; }

  void begin(const VectorBody& body) {
    body_ = &body;
    row_ = slice_ = tile_ = group_ = 0;
    second_held_ = false;
    state_ = State::kStreamTile;
    if (body.from_registers) {
      state_ = State::kReadRegisters;
    } else if (body.held) {
      state_ = State::kHoldTile;
    }
  }

  bool beats_ready(bool allow) const {
    switch (state_) {
      case State::kHoldTile: return true;
      case State::kStreamTile:
        return row_ >= body_->rows || !whole() ||
               (allow && (slice_ + 1 == slices_ || body_->wide));
      default: return false;
    }
  }

  // Whether a slice is there to be issued.
  bool offers(bool beat) const {
    switch (state_) {
      case State::kStreamTile: return row_ < body_->rows && beat && whole();
      case State::kIssueRegisters: return true;
      default: return false;
    }
  }

  bool cycle(bool beat, bool allow) {
    const bool issue = offers(beat) && allow;
    switch (state_) {
      case State::kWaitForStart:
        return false;
      case State::kHoldTile:
        if (!beat) return false;
        if (++row_ == elements_) {
          row_ = 0;
          if (second_held_ || body_->held < 2) state_ = State::kStreamTile;
          second_held_ = !second_held_ && body_->held == 2;
        }
        return true;
      case State::kStreamTile:
        if (row_ >= body_->rows) {
          if (!beat) return false;
          ++row_;
        } else if (!whole()) {
          upper_ = beat;
          return beat;
        } else {
          if (!issue) return false;
          upper_ = false;
          advance();
        }
        if (begins_row() && row_ == (body_->wide ? body_->rows : elements_)) end_tile();
        return true;
      case State::kReadRegisters:
        state_ = State::kIssueRegisters;
        return true;
      case State::kIssueRegisters:
        if (!issue) return false;
        advance();
        state_ = row_ == body_->rows ? State::kWaitForStart : State::kReadRegisters;
        return true;
    }
    return false;
  }

  // For how many cycles, this one included, it takes a row in each, or waits for one.
  int64_t streak(bool beat, bool allow) const {
    if (idle()) return kNever;
    if (state_ != State::kHoldTile && state_ != State::kStreamTile) return 1;
    if (!beat) return kNever;
    if (state_ == State::kHoldTile || row_ >= body_->rows) return elements_ - 1 - row_;
    const bool takes_rows = slices_ == 1 && !body_->wide && allow && row_;
    return takes_rows ? body_->rows - 1 - row_ : 1;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles, bool beat) {
    if (beat && !idle()) row_ += cycles;
  }

 private:
  enum class State { kWaitForStart, kHoldTile, kStreamTile, kReadRegisters, kIssueRegisters };

  // A wide slice that has two beats waits for its second one.
  bool whole() const { return slices_ > 1 || !body_->wide || upper_; }

  void advance() {
    if (++slice_ == slices_) {
      slice_ = 0;
      ++row_;
    }
  }

  void end_tile() {
    row_ = 0;
    if (!last_tile()) {
      ++tile_;
      return;
    }
    tile_ = 0;
    if (body_->held) state_ = State::kHoldTile;
    if (++group_ == body_->groups) state_ = State::kWaitForStart;
  }

  int64_t elements_, slices_;
  const VectorBody* body_ = nullptr;
  State state_ = State::kWaitForStart;
  int64_t row_ = 0, slice_ = 0, tile_ = 0, group_ = 0;
  bool upper_ = false, second_held_ = false;
};

// Follows slices through the lanes, where nothing holds them up: which of them leaves for memory
// when, and until when anything is under way.
class VectorSequencer {
 public:
  explicit VectorSequencer(const Config& config) : config_(config) {}

  bool busy(int64_t now) const { return now <= busy_until_; }
  // Cycles from one slice to the next, or a multiple of them.
  int64_t spacing() const { return spacing_; }
  // What left the lanes in the cycle before goes to memory.
  bool to_memory() const { return leaving_.at(memory_stage_); }

  void begin(const VectorBody& body) {
    body_ = &body;
    const bool folds = body.fold != Fold::NONE, reduces = body.reduce != Fold::NONE;
    const bool wide = body.target == VectorTarget::WIDE;
    const bool keeps_tile = folds || body.target == VectorTarget::REGISTERS;
    const bool without_b = body.b.kind == CoefficientKind::ABSENT;
    const bool without_c = body.c.kind == CoefficientKind::ABSENT;
    const bool evaluates = body.function != Function::IDENTITY && body.function != Function::RELU;

    // The first adder is needed once more, or twice; or the second; or there are two beats.
    const bool twice = reduces && keeps_tile;
    const bool again = !without_b && (reduces || keeps_tile);
    const bool products_beside = (body.reduce_product && !(without_b && without_c)) ||
                                 (body.times_y && !without_b);
    const bool two_beats = wide && config_.vector_slices == 1;
    spacing_ = twice && again ? 3 : twice || again || products_beside || two_beats ? 2 : 1;

    // A slice is in cycle 0 of the lanes a cycle after its issue.
    const int64_t result = 1 + kVectorResult + evaluates * kFunctionLatency;
    const int64_t accumulated = result + twice + kFloatAdderLatency;
    writes_ = wide || body.target == VectorTarget::NARROW;
    writes_last_ = folds;
    const int64_t multiplied = result + kVectorProduct - kFloatAdderLatency;
    memory_stage_ =
        static_cast<int>(folds ? accumulated + 1 : body.times_y ? multiplied : result + 1);
    last_stage_ = result + 1;
    if (reduces || keeps_tile) last_stage_ = accumulated;
    if (writes_) last_stage_ = std::max<int64_t>(last_stage_, memory_stage_);
    if (body.reduce_product || body.times_y) last_stage_ = result + kVectorProduct;
  }

  // The tile folded goes to its registers.
  void drain(int64_t now) {
    busy_until_ = now + body_->rows * config_.vector_slices + kVectorDrainCycles;
  }
  // The parts of sums over rows are added up.
  void combine(int64_t now) {
    const int64_t sum = body_->reduce_product ? kVectorProduct : kFloatAdderLatency;
    busy_until_ = now + config_.combination_cycles + kVectorCombinationResult + sum + 1;
  }

  // `issued`: a slice is, `last`: its tile is the last of a window.
  bool cycle(bool issued, bool last, int64_t now) {
    if (issued) busy_until_ = now + last_stage_;
    return leaving_.commit(leaves(issued, last), memory_stage_);
  }

  // Whether what leaves in this cycle also leaves in the next ones, if it goes on like that.
  bool is_steady(bool issued, bool last) const {
    return (!issued || spacing_ == 1) && leaving_.is_full_of(leaves(issued, last), memory_stage_);
  }
  void repeat(int64_t cycles, bool issued, int64_t now) {
    if (issued) busy_until_ = now + cycles - 1 + last_stage_;
  }

  int64_t next_event() const { return busy_until_ + 1; }

 private:
  bool leaves(bool issued, bool last) const {
    return issued && writes_ && (last || !writes_last_);
  }

  const Config& config_;
  const VectorBody* body_ = nullptr;
  DelayLine leaving_;
  int64_t spacing_ = 1, last_stage_ = 0, busy_until_ = -1;
  int memory_stage_ = 1;
  bool writes_ = false, writes_last_ = false;
};

// Joins what leaves the lanes to beats for memory.
class VectorWriter {
 public:
  explicit VectorWriter(const Config& config)
      : elements_(config.elements),
        slices_(config.vector_slices),
        ready_beats_(kVectorReadyBeats) {}

  bool room() const { return reserved_ <= kVectorReadyBeats - kVectorMostBeats; }
  void begin(const VectorBody& body) {
    wide_ = body.target == VectorTarget::WIDE;
    rows_ = body.rows;
  }
  bool data_valid() const { return padding() || ready_beats_.readable(); }

  // `reserve`: a slice more is under way that begins a beat, or two; `valid`: one leaves the lanes.
  bool cycle(bool reserve, bool valid, bool data_ready) {
    const bool taken = data_valid() && data_ready;
    const bool read = taken && !padding();
    if (slices_ == 1) {
      if (valid || upper_) ready_beats_.write({});
      upper_ = valid && wide_;
    } else if (valid) {
      if (upper_ || wide_) ready_beats_.write({});
      upper_ = !upper_ && !wide_;
    }
    if (read) ready_beats_.read();
    if (reserve) reserved_ += slices_ == 1 && wide_ ? kVectorMostBeats : 1;
    reserved_ -= read;
    if (taken && !wide_ && ++row_ == elements_) row_ = 0;
    return ready_beats_.commit() | taken | reserve | valid;
  }

  // For how many cycles, this one included, it has room and beats, or none, if it goes on like that.
  int64_t streak(bool reserve, bool valid, bool data_ready) const {
    if (upper_ || (valid && (wide_ || slices_ > 1)) || !room()) return 1;
    const bool taken = data_valid() && data_ready;
    int64_t cycles = ready_beats_.streak(valid, taken && !padding());
    if (taken && !wide_) {
      cycles = std::min(cycles, (row_ < rows_ ? rows_ : elements_) - 1 - row_);
    }
    if (reserve) cycles = std::min(cycles, kVectorReadyBeats - kVectorMostBeats - reserved_);
    return cycles;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles, bool reserve, bool valid, bool data_ready) {
    const bool taken = data_valid() && data_ready, read = taken && !padding();
    ready_beats_.repeat(cycles, valid, read);
    reserved_ += cycles * (reserve - read);
    if (taken && !wide_) row_ += cycles;
  }

 private:
  // Rows of zeros complete a narrow tile.
  bool padding() const { return !wide_ && row_ != 0 && row_ >= rows_; }

  int64_t elements_, slices_, rows_ = 0, row_ = 0, reserved_ = 0;
  bool wide_ = false;
  bool upper_ = false;  // the other half of a beat, or the other beat, comes next
  BufferedFifo<Nothing> ready_beats_;
};

// Carries out one VECTOR after the other.
class VectorUnit {
 public:
  explicit VectorUnit(const Config& config)
      : config_(config), intake_(config), sequencer_(config), writer_(config) {}

  bool command_ready() const { return state_ == State::kWaitForCommand; }
  bool beats_ready(int64_t now) const { return intake_.beats_ready(allow(now)); }
  const Descriptor* descriptor() const {
    return state_ == State::kIssueDescriptor ? &body_.descriptor : nullptr;
  }
  bool data_valid() const { return writer_.data_valid(); }
  // The last beat has been handed over, and registers are written.
  bool done() const { return state_ == State::kHandOver && beats_left_ == 0; }

  bool cycle(const VectorBody* command, bool beat, bool descriptor_ready, bool data_ready,
             int64_t now) {
    if (!command && command_ready()) return false;
    const bool is_done = done();
    const bool allows = allow(now), offers = intake_.offers(beat);
    const bool issue = offers && allows;
    const bool gives = issue && this->gives();
    const int64_t elapsed = intake_.place() * distance();
    const bool last = issue && intake_.last_tile();
    const bool intake_idle = intake_.idle(), sequencer_busy = sequencer_.busy(now);
    // A slice that isn't allowed yet may be in the next cycle.
    bool changes = command || is_done || (data_valid() && data_ready) || offers;

    if (data_valid() && data_ready) --beats_left_;
    changes |= writer_.cycle(gives, sequencer_.to_memory(), data_ready);
    changes |= sequencer_.cycle(issue, last, now);
    if (issue && body_.fold != Fold::NONE) {
      tile_pause_ = std::max<int64_t>(0, kVectorFoldSpacing - 1 - elapsed);
    } else if (tile_pause_) {
      --tile_pause_;
      changes = true;
    }
    changes |= intake_.cycle(beat, allows);

    switch (state_) {
      case State::kWaitForCommand:
        if (command) {
          body_ = *command;
          to_memory_ = body_.target == VectorTarget::NARROW || body_.target == VectorTarget::WIDE;
          started_ = now;
          state_ = State::kStartCheck;
        }
        break;
      case State::kStartCheck:
        sequencer_.begin(body_);
        phases_ = now + 1;
        state_ = State::kCheck;
        changes = true;
        break;
      case State::kCheck:
        if (!to_memory_ || now >= started_ + kVectorCheckCycles) {
          beats_left_ = to_memory_ ? beats() : 0;
          state_ = to_memory_ ? State::kIssueDescriptor : State::kStartIntake;
          changes = true;
        }
        break;
      case State::kIssueDescriptor:
        if (descriptor_ready) {
          state_ = State::kStartIntake;
          changes = true;
        }
        break;
      case State::kStartIntake:
        if (now >= started_ + loading_cycles()) {
          intake_.begin(body_);
          writer_.begin(body_);
          state_ = State::kCompute;
          changes = true;
        }
        break;
      case State::kCompute:
        if (intake_idle && !sequencer_busy) {
          if (body_.target == VectorTarget::REGISTERS) {
            sequencer_.drain(now);
            state_ = State::kWriteRegisters;
          } else {
            finish(now);
          }
          changes = true;
        }
        break;
      case State::kWriteRegisters:
        if (!sequencer_busy) {
          finish(now);
          changes = true;
        }
        break;
      case State::kAddParts:
        if (!sequencer_busy) {
          state_ = State::kHandOver;
          changes = true;
        }
        break;
      case State::kHandOver:
        if (is_done) state_ = State::kWaitForCommand;
        break;
    }
    return changes;
  }

  // For how many cycles, this one included, it does the same if all around it do.
  int64_t streak(bool beat, bool descriptor_ready, bool data_ready, int64_t now) const {
    if (command_ready()) return kNever;
    const bool starts = state_ == State::kStartCheck ||
                        (state_ == State::kIssueDescriptor && descriptor_ready);
    if (starts || done() || tile_pause_) return 1;
    const bool allows = allow(now), issue = intake_.offers(beat) && allows;
    const bool last = issue && intake_.last_tile();
    if (!sequencer_.is_steady(issue, last)) return 1;
    int64_t cycles = std::min(next_event() - now, intake_.streak(beat, allows));
    cycles = std::min(cycles,
                      writer_.streak(issue && gives(), sequencer_.to_memory(), data_ready));
    if (data_valid() && data_ready) cycles = std::min(cycles, beats_left_ - 1);
    return cycles;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles, bool beat, bool data_ready, int64_t now) {
    if (command_ready()) return;
    const bool issue = intake_.offers(beat) && allow(now);
    if (data_valid() && data_ready) beats_left_ -= cycles;
    writer_.repeat(cycles, issue && gives(), sequencer_.to_memory(), data_ready);
    sequencer_.repeat(cycles, issue, now);
    intake_.repeat(cycles, beat);
  }

  int64_t next_event() const {
    switch (state_) {
      case State::kCheck: return started_ + to_memory_ * kVectorCheckCycles;
      case State::kStartIntake: return started_ + loading_cycles();
      case State::kCompute: return intake_.idle() ? sequencer_.next_event() : kNever;
      case State::kWriteRegisters:
      case State::kAddParts: return sequencer_.next_event();
      default: return kNever;
    }
  }

 private:
  enum class State {
    kWaitForCommand, kStartCheck, kCheck, kIssueDescriptor, kStartIntake, kCompute,
    kWriteRegisters, kAddParts, kHandOver,
  };

  // Coefficients are loaded while the command is checked.
  int64_t loading_cycles() const { return kVectorCoefficients * config_.vector_slices; }

  // The next slice begins a beat for memory, or two.
  bool gives() const {
    const bool wide = body_.target == VectorTarget::WIDE;
    const bool narrow = body_.target == VectorTarget::NARROW;
    if (!wide && !(narrow && intake_.begins_row())) return false;
    return body_.fold == Fold::NONE || intake_.last_tile();
  }

  // A slice goes on if there's room for what it gives, and if nothing is in its way.
  bool allow(int64_t now) const {
    if (intake_.idle()) return false;
    return (!gives() || writer_.room()) && !(intake_.begins_tile() && tile_pause_) &&
           (now - phases_) % sequencer_.spacing() == 0;
  }

  // Cycles from a slice of a tile to its next, at least.
  int64_t distance() const {
    return config_.vector_slices == 1 && body_.wide ? 2 : sequencer_.spacing();
  }

  int64_t beats() const {
    const int64_t tiles = body_.groups * (body_.fold != Fold::NONE ? 1 : body_.window);
    const bool wide = body_.target == VectorTarget::WIDE;
    return tiles * (wide ? kWideBeats * body_.rows : config_.elements);
  }

  void finish(int64_t now) {
    state_ = State::kHandOver;
    if (body_.reduce != Fold::NONE || body_.reduce_product) {
      sequencer_.combine(now);
      state_ = State::kAddParts;
    }
  }

  const Config& config_;
  VectorIntake intake_;
  VectorSequencer sequencer_;
  VectorWriter writer_;
  State state_ = State::kWaitForCommand;
  VectorBody body_{};
  int64_t started_ = 0, phases_ = 0, beats_left_ = 0, tile_pause_ = 0;
  bool to_memory_ = false;
};

}  // namespace sat
