// VECTOR: `rtl/vector/{vector_unit,intake,sequencer,writer}.py`.

#pragma once

#include "fifo.hpp"
#include "gateware.hpp"
#include "memory.hpp"

namespace sat {

// Takes the beats of a command's tiles, or reads registers, and issues half rows.
class VectorIntake {
 public:
  explicit VectorIntake(const Config& config) : elements_(config.elements) {}

  bool idle() const { return state_ == State::kWaitForStart; }
  bool begins_tile() const { return row_ == 0 && !half_; }
  bool half() const { return half_; }
  bool last_tile() const { return tile_ + 1 == body_->window; }

  void begin(const VectorBody& body) {
    body_ = &body;
    row_ = tile_ = group_ = 0;
    half_ = second_held_ = false;
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
      case State::kStreamTile: return row_ >= body_->rows || (allow && (half_ || body_->wide));
      default: return false;
    }
  }

  // Whether a half row is issued in this cycle.
  bool issues(bool beat, bool allow) const {
    switch (state_) {
      case State::kStreamTile: return row_ < body_->rows && beat && allow;
      case State::kIssueRegisters: return allow;
      default: return false;
    }
  }

  bool cycle(bool beat, bool allow) {
    const bool issue = issues(beat, allow);
    const bool taken = beat && beats_ready(allow);
    bool tile_ends = false;
    switch (state_) {
      case State::kWaitForStart:
        return false;
      case State::kHoldTile:
        if (!taken) return false;
        if (++row_ == elements_) {
          row_ = 0;
          if (second_held_ || body_->held < 2) state_ = State::kStreamTile;
          second_held_ = !second_held_ && body_->held == 2;
        }
        return true;
      case State::kStreamTile:
        if (!issue && !taken) return false;
        if (row_ >= body_->rows) {
          ++row_;
          tile_ends = row_ == elements_;
        } else {
          half_ = !half_;
          if (!half_) ++row_;
          tile_ends = !half_ && row_ == (body_->wide ? body_->rows : elements_);
        }
        if (tile_ends) {
          const bool ends_window = last_tile();
          row_ = 0;
          tile_ = ends_window ? 0 : tile_ + 1;
          if (ends_window) {
            if (body_->held) state_ = State::kHoldTile;
            if (++group_ == body_->groups) state_ = State::kWaitForStart;
          }
        }
        return true;
      case State::kReadRegisters:
        state_ = State::kIssueRegisters;
        return true;
      case State::kIssueRegisters:
        if (!issue) return false;
        state_ = State::kReadRegisters;
        half_ = !half_;
        if (!half_ && ++row_ == body_->rows) state_ = State::kWaitForStart;
        return true;
    }
    return false;
  }

 private:
  enum class State { kWaitForStart, kHoldTile, kStreamTile, kReadRegisters, kIssueRegisters };

  int64_t elements_;
  const VectorBody* body_ = nullptr;
  State state_ = State::kWaitForStart;
  int64_t row_ = 0, tile_ = 0, group_ = 0;
  bool half_ = false, second_held_ = false;
};

// Follows each half row through the lanes: when something leaves, whether anything is under way.
class VectorSequencer {
 public:
  explicit VectorSequencer(const Config& config) : turns_(config.floats + kFunctionLatency) {}

  bool busy() const { return busy_; }
  bool exclusive() const { return exclusive_; }
  // What left the lanes in the cycle before goes to memory.
  bool to_memory() const { return to_memory_; }

  void begin(const VectorBody& body) {
    body_ = &body;
    folds_ = body.fold != Fold::NONE;
    writes_ = body.target == VectorTarget::NARROW || body.target == VectorTarget::WIDE;
    keeps_tile_ = folds_ || body.target == VectorTarget::REGISTERS;
    reduces_ = body.reduce != Fold::NONE;
    row_stage_ = body.reduce == Fold::SUM ? kFloatAdderLatency : 1;
    fold_stage_ = body.fold == Fold::SUM ? kFloatAdderLatency : 1;
    evaluates_ = body.function != Function::IDENTITY && body.function != Function::RELU;
    const bool without_b = body.b.kind == CoefficientKind::ABSENT;
    const bool without_c = body.c.kind == CoefficientKind::ABSENT;
    exclusive_ = evaluates_ || (reduces_ && keeps_tile_) ||
                 (!without_b && (body.reduce == Fold::SUM || body.fold == Fold::SUM)) ||
                 (body.reduce_product && !(without_b && without_c));
    clear_left_ = kVectorClearCycles;
    busy_ = true;
  }
  void drain() { drain_left_ = kHalves * body_->rows; busy_ = true; }
  void combine() { combinations_left_ = kVectorCombinations; pause_ = 0; busy_ = true; }

  // `issued`: a half row was, in the cycle before; `last`: its tile is the last of a window.
  bool cycle(bool issued, bool last) {
    if (!busy_ && !issued) return false;

    // Cycles 0 to 15, and 16: longer if a function is evaluated.
    const bool computed = computing_.at(kVectorTaken);
    const bool computed_last = computing_last_.at(kVectorTaken);
    const bool combining = combinations_left_ && !pause_;
    const bool finish = held_ && !turns_left_;
    const bool finish_last = held_last_, finish_combines = held_combines_;
    if (computed || combining) {
      held_ = true;
      held_last_ = computed_last && !combining;
      held_combines_ = combining;
      turns_left_ = evaluates_ && !combining ? turns_ : 0;
    } else {
      held_ = held_ && !finish;
      if (turns_left_) --turns_left_;
    }
    if (combining) {
      --combinations_left_;
      pause_ = kVectorCombinationSpacing - 1;
    } else if (pause_) {
      --pause_;
    }

    // 17: to a sum over rows or to the tile folded; to the tile a cycle later if there are both.
    const bool result = results_.at(1), result_combines = results_combine_.at(1);
    const bool later = results_.at(2), later_combines = results_combine_.at(2);
    bool accumulating = false, to_fold = false, accumulated_last = false;
    if (result) {
      accumulating = result_combines ? reduces_ : reduces_ || keeps_tile_;
      to_fold = !result_combines && !reduces_;
      accumulated_last = results_last_.at(1);
    } else if (later && !later_combines && reduces_ && keeps_tile_) {
      accumulating = to_fold = true;
      accumulated_last = results_last_.at(2);
    }
    const bool fold_done = folding_.at(fold_stage_) && folding_last_.at(fold_stage_);
    const bool part_done = summing_final_.at(row_stage_);
    const bool product_done = products_final_.at(kVectorProductCycles);

    const bool memory = writes_ && ((result && !result_combines && !folds_) || fold_done);
    const bool draining = drain_left_ != 0;
    const bool registers = leaves_fold_ || part_done || product_done;
    to_register_ = registers;
    to_memory_ = memory;
    leaves_fold_ = draining;
    drain_left_ -= draining;
    clear_left_ -= clear_left_ != 0;

    computing_.commit(issued, kVectorTaken);
    computing_last_.commit(issued && last, kVectorTaken);
    results_.commit(finish, 2);
    results_last_.commit(finish && finish_last, 2);
    results_combine_.commit(finish && finish_combines, 2);
    slots_.commit(accumulating, kFloatAdderLatency);
    folding_.commit(accumulating && to_fold, kFloatAdderLatency);
    folding_last_.commit(accumulating && to_fold && accumulated_last, kFloatAdderLatency);
    // The last addition of a half leaves; which ones these are doesn't matter for the time.
    summing_final_.commit(accumulating && result && result_combines, kFloatAdderLatency);
    products_.commit(result && body_->reduce_product, kVectorProductCycles);
    products_final_.commit(result && result_combines && body_->reduce_product,
                           kVectorProductCycles);
    busy_ = computing_.any() || held_ || combinations_left_ || results_.any() || slots_.any() ||
            products_.any() || drain_left_ || leaves_fold_ || clear_left_ || to_memory_ ||
            to_register_;
    return true;
  }

 private:
  int64_t turns_;
  const VectorBody* body_ = nullptr;
  bool folds_ = false, writes_ = false, keeps_tile_ = false, reduces_ = false;
  bool evaluates_ = false, exclusive_ = false;
  int row_stage_ = 1, fold_stage_ = 1;
  DelayLine computing_, computing_last_, results_, results_last_, results_combine_;
  DelayLine slots_, folding_, folding_last_, summing_final_, products_, products_final_;
  int64_t turns_left_ = 0, drain_left_ = 0;
  int combinations_left_ = 0, pause_ = 0, clear_left_ = 0;
  bool held_ = false, held_last_ = false, held_combines_ = false, leaves_fold_ = false;
  bool to_memory_ = false, to_register_ = false, busy_ = false;
};

// Joins what leaves the lanes to beats for memory.
class VectorWriter {
 public:
  explicit VectorWriter(const Config& config)
      : elements_(config.elements), ready_beats_(kVectorReadyBeats) {}

  bool room() const { return reserved_ != kVectorReadyBeats; }
  void begin(const VectorBody& body) {
    wide_ = body.target == VectorTarget::WIDE;
    rows_ = body.rows;
  }
  bool data_valid() const { return padding() || ready_beats_.readable(); }

  bool cycle(bool reserve, bool valid, bool data_ready) {
    const bool taken = data_valid() && data_ready;
    const bool read = taken && !padding();
    if (valid && (upper_ || wide_)) ready_beats_.write({});
    if (valid) upper_ = !upper_ && !wide_;
    if (read) ready_beats_.read();
    reserved_ += reserve - read;
    if (taken && !wide_ && ++row_ == elements_) row_ = 0;
    return ready_beats_.commit() | taken | reserve | valid;
  }

 private:
  // Rows of zeros complete a narrow tile.
  bool padding() const { return !wide_ && row_ != 0 && row_ >= rows_; }

  int64_t elements_, rows_ = 0, row_ = 0, reserved_ = 0;
  bool wide_ = false, upper_ = false;
  BufferedFifo<Nothing> ready_beats_;
};

// Carries out one VECTOR after the other.
class VectorUnit {
 public:
  explicit VectorUnit(const Config& config)
      : config_(config), intake_(config), sequencer_(config), writer_(config) {}

  bool command_ready() const { return state_ == State::kWaitForCommand; }
  bool busy() const { return state_ != State::kWaitForCommand; }
  bool beats_ready() const { return intake_.beats_ready(allow()); }
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
    const bool allows = allow();
    const bool issue = intake_.issues(beat, allows);
    const bool begins_beat = this->begins_beat(), begins_tile = intake_.begins_tile();
    const bool last = intake_.idle() ? false : intake_.last_tile();
    const bool intake_idle = intake_.idle(), sequencer_busy = this->sequencer_busy();
    bool changes = command || is_done || (data_valid() && data_ready);

    if (data_valid() && data_ready) --beats_left_;
    changes |= writer_.cycle(issue && begins_beat, sequencer_.to_memory(), data_ready);
    changes |= sequencer_.cycle(issued_, issued_last_);
    issued_ = issue;
    issued_last_ = last;
    if (issue && begins_tile && body_.fold != Fold::NONE) {
      spacing_ = kVectorFoldSpacing - 1;
    } else if (spacing_) {
      --spacing_;
      changes = true;
    }
    changes |= intake_.cycle(beat, allows) | issue;

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
        if (now >= started_ + kVectorCoefficientCycles) {
          intake_.begin(body_);
          writer_.begin(body_);
          state_ = State::kCompute;
          changes = true;
        }
        break;
      case State::kCompute:
        if (intake_idle && !sequencer_busy) {
          if (body_.target == VectorTarget::REGISTERS) {
            sequencer_.drain();
            state_ = State::kWriteRegisters;
          } else {
            finish();
          }
          changes = true;
        }
        break;
      case State::kWriteRegisters:
        if (!sequencer_busy) {
          finish();
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

  int64_t next_event() const {
    switch (state_) {
      case State::kCheck: return started_ + kVectorCheckCycles;
      case State::kStartIntake: return started_ + kVectorCoefficientCycles;
      default: return kNever;
    }
  }

 private:
  enum class State {
    kWaitForCommand, kStartCheck, kCheck, kIssueDescriptor, kStartIntake, kCompute,
    kWriteRegisters, kAddParts, kHandOver,
  };

  bool begins_beat() const {
    const bool wide = body_.target == VectorTarget::WIDE;
    const bool narrow = body_.target == VectorTarget::NARROW;
    if (!wide && !(narrow && !intake_.half())) return false;
    return body_.fold == Fold::NONE || (!intake_.idle() && intake_.last_tile());
  }

  // A half row goes on if there's room for what it gives, and if nothing is in its way.
  bool allow() const {
    return (!begins_beat() || writer_.room()) && !(intake_.begins_tile() && spacing_) &&
           !(sequencer_.exclusive() && sequencer_busy());
  }

  // The half row issued in the cycle before is in cycle 0.
  bool sequencer_busy() const { return sequencer_.busy() || issued_; }

  int64_t beats() const {
    const int64_t tiles = body_.groups * (body_.fold != Fold::NONE ? 1 : body_.window);
    const bool wide = body_.target == VectorTarget::WIDE;
    return tiles * (wide ? kHalves * body_.rows : config_.elements);
  }

  void finish() {
    state_ = State::kHandOver;
    if (body_.reduce != Fold::NONE || body_.reduce_product) {
      sequencer_.combine();
      state_ = State::kAddParts;
    }
  }

  const Config& config_;
  VectorIntake intake_;
  VectorSequencer sequencer_;
  VectorWriter writer_;
  State state_ = State::kWaitForCommand;
  VectorBody body_{};
  int64_t started_ = 0, beats_left_ = 0, spacing_ = 0;
  bool to_memory_ = false, issued_ = false, issued_last_ = false;
};

}  // namespace sat
