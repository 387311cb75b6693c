// UPDATE: `rtl/update/{pregeneration,intake,transposer,writer}.py`.

#pragma once

#include "compressor.hpp"
#include "gateware.hpp"

namespace sat {

// Turns chunks along rows into chunks along columns, block by block of M rows.
class BlockTransposer {
 public:
  explicit BlockTransposer(const Config& config) : block_(config.elements) {}

  bool o_valid() const { return o_valid_; }

  bool cycle(bool i_valid) {
    const bool reads = waiting_ != 0;
    const bool filled = i_valid && filled_ + 1 == block_;
    const bool emptied = reads && emptied_ + 1 == block_;
    const bool changes = i_valid || reads || o_valid_;
    if (i_valid) filled_ = filled ? 0 : filled_ + 1;
    if (reads) emptied_ = emptied ? 0 : emptied_ + 1;
    waiting_ += filled - emptied;
    o_valid_ = reads;
    return changes;
  }

 private:
  int64_t block_;  // chunks: G/M of each of M rows
  int64_t filled_ = 0, emptied_ = 0;
  int waiting_ = 0;
  bool o_valid_ = false;
};

// Takes state beats in pairs and issues chunks of them with their gradients.
class StateIntake {
 public:
  explicit StateIntake(const Config& config)
      : config_(config), chunks_(config.floats / config.group) {}

  bool idle() const { return tiles_left_ == 0; }
  // A chunk of a pair waits for its gradients.
  bool has_pair() const { return has_pair_; }
  bool state_ready(bool pair_room, bool o_ready) const {
    return tile_open_ && (!has_weights_ || pair_ready(pair_room, o_ready));
  }

  void begin(const UpdateBody& body) {
    tiles_left_ = body.tiles;
    rows_ = body.rows;
  }

  struct Step {
    bool tile_begin = false, pair_taken = false, segment_begin = false, issued = false;
    bool last_of_pair = false;
  };

  // What happens in this cycle; `beat`: one of state is on offer.
  Step cycle(bool beat, bool tile_free, bool pair_room, bool o_ready) {
    Step step;
    const bool taken = beat && state_ready(pair_room, o_ready);
    step.tile_begin = !idle() && !tile_open_ && tile_free;
    step.pair_taken = taken && has_weights_;
    step.segment_begin = step.pair_taken && !second_word_ && row_ % config_.group == 0;
    step.issued = has_pair_ && o_ready;
    step.last_of_pair = last_issued(o_ready);
    if (step.issued) chunk_ = step.last_of_pair ? 0 : chunk_ + 1;
    has_pair_ = step.pair_taken || (has_pair_ && !step.last_of_pair);
    if (taken) has_weights_ = !has_weights_;
    if (step.tile_begin) tile_open_ = true;
    if (step.pair_taken) {
      second_word_ = !second_word_;
      if (!second_word_ && ++row_ == rows_) {
        row_ = 0;
        tile_open_ = false;
        --tiles_left_;
      }
    }
    return step;
  }

 private:
  bool last_issued(bool o_ready) const {
    return has_pair_ && o_ready && chunk_ + 1 == chunks_;
  }
  bool pair_ready(bool pair_room, bool o_ready) const {
    return pair_room && (!has_pair_ || (chunks_ > 1 && last_issued(o_ready)));
  }

  const Config& config_;
  int64_t chunks_;  // of a beat
  int64_t tiles_left_ = 0, rows_ = 0, row_ = 0, chunk_ = 0;
  bool tile_open_ = false, has_weights_ = false, second_word_ = false, has_pair_ = false;
};

// Chooses what is written next and hands over its descriptor and then its beats.
class UpdateWriter {
 public:
  explicit UpdateWriter(const Config& config) : config_(config) {}

  enum Source { kState, kRowCopy, kColumnCopy };

  bool idle() const { return !segments_ && !tiles_due_ && !chosen_ && !left_; }
  const Descriptor* descriptor() const { return chosen_ && !announced_ ? &descriptor_ : nullptr; }
  // Whose beats are handed over, while any are.
  bool active() const { return left_ != 0; }
  Source current() const { return current_; }

  void begin(const UpdateBody& body) {
    body_ = &body;
    addresses_[kState] = body.state_address;
    addresses_[kRowCopy] = body.row_address;
    addresses_[kColumnCopy] = body.column_address;
    rows_left_ = body.rows;
    column_turn_ = !body.row_copy;
  }

  bool cycle(bool segment_begin, bool row_complete, bool column_complete, bool descriptor_ready,
             bool data_taken, int64_t row_beats, int64_t column_beats) {
    const bool announces = chosen_ && !announced_ && descriptor_ready;
    const bool ending = data_taken && left_ == 1;
    const bool hands_over = announced_ && (!left_ || ending);
    bool chooses = false;
    int segment_chosen = 0, row_chosen = 0, column_chosen = 0;
    bool tile_closed = false, copies_closed = false;
    if (!chosen_) {
      if (tiles_due_ && !column_turn_ && rows_ready_) {
        row_chosen = 1;
        copies_closed = !body_->column_copy;
        choose(kRowCopy, row_beats, body_->row_stride);
        column_turn_ = body_->column_copy;
      } else if (tiles_due_ && column_turn_ && columns_ready_) {
        column_chosen = 1;
        copies_closed = true;
        choose(kColumnCopy, column_beats, body_->column_stride);
        column_turn_ = !body_->row_copy;
      } else if (segments_) {
        segment_chosen = 1;
        const bool last = rows_left_ <= config_.group;
        const int64_t beats = kStateBeatsPerRow * (last ? rows_left_ : config_.group);
        tile_closed = last && (body_->row_copy || body_->column_copy);
        choose(kState, beats, beats * config_.beat_bytes);
        rows_left_ = last ? body_->rows : rows_left_ - config_.group;
      }
      chooses = row_chosen || column_chosen || segment_chosen;
    }
    segments_ += segment_begin - segment_chosen;
    rows_ready_ += row_complete - row_chosen;
    columns_ready_ += column_complete - column_chosen;
    tiles_due_ += tile_closed - copies_closed;
    left_ -= data_taken;
    if (announces) announced_ = true;
    if (hands_over) {
      left_ = beats_;
      current_ = source_;
      chosen_ = announced_ = false;
    }
    if (chooses) chosen_ = true;
    return announces || hands_over || chooses || data_taken || segment_begin || row_complete ||
           column_complete;
  }

 private:
  void choose(Source source, int64_t beats, int64_t step) {
    source_ = source;
    beats_ = beats;
    descriptor_ = {addresses_[source], {beats, 1, 1, 1}, {0, 0, 0}};
    addresses_[source] += step;
  }

  const Config& config_;
  const UpdateBody* body_ = nullptr;
  Descriptor descriptor_{};
  int64_t addresses_[3] = {};
  int64_t beats_ = 0, left_ = 0, rows_left_ = 0;
  int segments_ = 0, rows_ready_ = 0, columns_ready_ = 0, tiles_due_ = 0;
  Source source_ = kState, current_ = kState;
  bool column_turn_ = false, chosen_ = false, announced_ = false;
};

// New state and both compressed copies of each tile in one pass.
class UpdateUnit {
 public:
  explicit UpdateUnit(const Config& config)
      : config_(config),
        intake_(config),
        writer_(config),
        transposer_(config),
        state_beats_(kStateBeatsPerRow * config.elements + 1) {}

  bool command_ready() const { return state_ == State::kWaitForCommand; }
  // `o_ready`: the O scratchpad can be read.
  bool state_ready(bool o_ready) const { return intake_.state_ready(pair_room(), o_ready); }
  const Descriptor* descriptor() const { return writer_.descriptor(); }
  bool data_valid() const {
    if (!writer_.active()) return false;
    switch (writer_.current()) {
      case UpdateWriter::kState: return state_beats_.readable();
      case UpdateWriter::kRowCopy: return row_compressor_.o_valid();
      default: return column_compressor_.o_valid();
    }
  }
  // A command's last beat has been handed over.
  bool done() const { return state_ == State::kRun && intake_.idle() && writer_.idle(); }

  // `o_free`: the cycle from which on that is so.
  bool cycle(const UpdateBody* command, bool beat, bool descriptor_ready, bool data_ready,
             int64_t o_free, int64_t now) {
    waits_until_ = kNever;
    if (!command && command_ready()) return false;
    const bool o_ready = o_free <= now;
    if (intake_.has_pair() && !o_ready) waits_until_ = o_free;
    const bool data_taken = data_valid() && data_ready;
    const UpdateWriter::Source source = writer_.current();
    const bool is_done = done();
    const bool tile_free = (row_compressor_.free() || !body_.row_copy) &&
                           (column_compressor_.free() || !body_.column_copy);
    const bool row_complete = row_compressor_.complete();
    const bool column_complete = column_compressor_.complete();
    const bool updated = issued_.at(kUpdateTravel);
    const bool beat_taken = beat && state_ready(o_ready);
    const StateIntake::Step step = intake_.cycle(beat, tile_free, pair_room(), o_ready);
    bool changes = command || data_taken || is_done || beat_taken || step.tile_begin;

    const bool state_taken = data_taken && source == UpdateWriter::kState;
    reserved_ += 2 * step.pair_taken - state_taken;
    if (state_taken) state_beats_.read();
    // Two beats of a pair, one after the other.
    if (pairs_.at(kUpdateTravel + 1) || pairs_.at(kUpdateTravel + 2)) state_beats_.write({});

    changes |= row_compressor_.cycle(step.tile_begin && body_.row_copy,
                                     updated && body_.row_copy,
                                     data_ready && writer_.active() &&
                                         source == UpdateWriter::kRowCopy);
    changes |= column_compressor_.cycle(step.tile_begin && body_.column_copy,
                                        transposer_.o_valid(),
                                        data_ready && writer_.active() &&
                                            source == UpdateWriter::kColumnCopy);
    changes |= transposer_.cycle(updated && body_.column_copy);
    changes |= writer_.cycle(step.segment_begin, row_complete, column_complete, descriptor_ready,
                             data_taken, row_beats_, column_beats_);
    changes |= issued_.commit(step.issued, kUpdateTravel);
    changes |= pairs_.commit(step.last_of_pair, kUpdateTravel + 2);
    changes |= state_beats_.commit();

    switch (state_) {
      case State::kWaitForCommand:
        if (command) {
          body_ = *command;
          state_ = State::kCheckBody;
        }
        break;
      case State::kCheckBody:
        state_ = State::kCheckRange;
        changes = true;
        break;
      case State::kCheckRange:
        begin();
        state_ = State::kRun;
        changes = true;
        break;
      case State::kRun:
        if (is_done) state_ = State::kWaitForCommand;
        break;
    }
    return changes;
  }

  int64_t next_event() const { return waits_until_; }

 private:
  enum class State { kWaitForCommand, kCheckBody, kCheckRange, kRun };

  bool pair_room() const { return reserved_ <= kStateBeatsPerRow * config_.elements - 2; }

  void begin() {
    const bool whole = body_.rows == config_.elements;
    row_beats_ = whole ? config_.tile_beats[body_.row_pattern] : body_.rows;
    column_beats_ = config_.tile_beats[body_.column_pattern];
    row_compressor_.begin_command(body_.rows * config_.chunks, row_beats_);
    column_compressor_.begin_command(body_.rows * config_.chunks, column_beats_);
    intake_.begin(body_);
    writer_.begin(body_);
  }

  const Config& config_;
  StateIntake intake_;
  UpdateWriter writer_;
  BlockTransposer transposer_;
  TileCompressor row_compressor_, column_compressor_;
  BufferedFifo<Nothing> state_beats_;
  DelayLine issued_, pairs_;
  State state_ = State::kWaitForCommand;
  UpdateBody body_{};
  int64_t waits_until_ = kNever;  // for the O scratchpad
  int64_t reserved_ = 0, row_beats_ = 0, column_beats_ = 0;
};

}  // namespace sat
