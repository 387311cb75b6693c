// What a command must be for its time to mean anything. The gateware's units check this and more,
// and stop the program; what they look for besides doesn't change any time.

#pragma once

#include <algorithm>

#include "gateware.hpp"

namespace sat {

class Checks {
 public:
  explicit Checks(const Config& config) : config_(config) {}

  bool passes(const Command& command) const {
    const Header& header = command.header;
    switch (header.opcode) {
      case Opcode::NOP:
        return header.queue < kQueues && (header.queue != Queue::STREAM || config_.stream_queue);
      case Opcode::LOAD: return passes(command.load);
      case Opcode::COMPUTE: return passes(command.compute);
      case Opcode::STORE: return passes(command.store);
      case Opcode::UPDATE: return passes(command.update);
      case Opcode::VECTOR: return passes(command.vector);
      default: return false;
    }
  }

 private:
  bool passes(const LoadBody& body) const {
    const bool to_s = body.target == LoadTarget::S;
    const bool tiles =
        to_s || (body.target == LoadTarget::D && body.order == LoadOrder::TILES);
    if (body.target > LoadTarget::STATE) return false;
    if (!body.rows || !body.d_words || (tiles && body.rows % config_.elements)) return false;
    if (to_s && (!supported(body.pattern) || (body.transpose && body.pattern != Pattern::DENSE))) {
      return false;
    }
    const int64_t rows = to_s ? body.rows / config_.elements * config_.tile_beats[body.pattern]
                              : body.rows;
    const int64_t beats = rows * body.d_words;
    if (body.transpose && beats % config_.elements) return false;
    const Frame& frame = body.frame;
    int64_t inside = beats;
    if (frame.images || frame.lines || frame.beats) {
      const int64_t lines = frame.above + frame.lines + frame.below;
      inside = frame.images * frame.lines * frame.beats;
      if (frame.images * lines * (frame.before + frame.beats + frame.after) != beats) return false;
    }
    return names(body.descriptor, inside);
  }

  bool passes(const ComputeBody& body) const {
    const bool is_one_tile = body.a_tiles == 1 && body.b_tiles == 1;
    return supported(body.pattern) && body.d_words && body.a_tiles && body.b_tiles &&
           (!body.keep || (is_one_tile && !body.accumulate)) &&
           config_.interleave >> body.a_contexts;
  }

  bool passes(const StoreBody& body) const {
    if (!body.rows || !body.words || (body.convert && body.words % kWordsPerRow)) return false;
    int64_t beats = body.rows * body.words / (body.convert ? kWordsPerRow : 1);
    if (body.compress) {
      if (!body.convert || !supported(body.pattern) || body.rows % config_.elements) return false;
      beats = beats / config_.elements * config_.tile_beats[body.pattern];
    }
    return names(body.descriptor, beats);
  }

  bool passes(const UpdateBody& body) const {
    if (!body.tiles || !body.rows || body.rows > config_.elements) return false;
    if (body.row_copy && !supported(body.row_pattern)) return false;
    if (body.column_copy && !supported(body.column_pattern)) return false;
    return body.rows == config_.elements ||
           (!body.column_copy && !(body.row_copy && body.row_pattern != Pattern::DENSE));
  }

  bool passes(const VectorBody& body) const {
    const bool folds = body.fold != Fold::NONE;
    const bool single = body.groups == 1 && (folds || body.window == 1);
    if (!body.groups || !body.window || !body.rows || body.rows > config_.elements) return false;
    if (body.held > 2) return false;
    if (body.from_registers && (!single || body.window != 1 || body.held)) return false;
    if (body.target == VectorTarget::REGISTERS && !single) return false;
    const bool wide = body.target == VectorTarget::WIDE;
    if (body.times_y && folds) return false;
    if (!wide && body.target != VectorTarget::NARROW) return !body.times_y;
    const int64_t tiles = body.groups * (folds ? 1 : body.window);
    return names(body.descriptor, tiles * (wide ? kWideBeats * body.rows : config_.elements));
  }

  bool supported(int64_t pattern) const {
    return pattern < static_cast<int64_t>(std::size(config_.tile_beats)) &&
           config_.tile_beats[pattern];
  }

  // Whether a descriptor names so many beats, all of them in memory.
  bool names(const Descriptor& descriptor, int64_t beats) const {
    int64_t named = descriptor.counts[0];
    int64_t first = descriptor.address;
    int64_t last = first + (descriptor.counts[0] - 1) * config_.beat_bytes;
    bool aligned = first % config_.beat_bytes == 0;
    for (size_t i = 0; i < descriptor.strides.size(); ++i) {
      const int64_t span = (descriptor.counts[i + 1] - 1) * descriptor.strides[i];
      named *= descriptor.counts[i + 1];
      (span < 0 ? first : last) += span;
      aligned = aligned && descriptor.strides[i] % config_.beat_bytes == 0;
    }
    return beats && named == beats && aligned && first >= 0 && last < config_.memory_bytes;
  }

  const Config& config_;
};

}  // namespace sat
