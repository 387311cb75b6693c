// The accelerator and its memory, cycle by cycle: `rtl/core.py`, `rtl/interface/write_arbiter.py`.
//
// Every unit keeps the registers that decide when something happens, and no values. A cycle settles
// what is handed over by what the registers hold at its beginning, then advances all of them.
// Cycles in which nothing but time passes are left out, and those in which only beats stream, to a
// scratchpad or through the vector unit, are taken many at once.

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "checks.hpp"
#include "fifo.hpp"
#include "gateware.hpp"
#include "load_unit.hpp"
#include "memory.hpp"
#include "processor.hpp"
#include "read_arbiter.hpp"
#include "store_unit.hpp"
#include "striper.hpp"
#include "tensor_engine.hpp"
#include "update_unit.hpp"
#include "vector_unit.hpp"

namespace sat {

// Mirrored by `sim.cycles.model.Outcome`.
enum Outcome { kFinished = 0, kHangs = 1, kTimedOut = 2 };

constexpr size_t kMostChannels = 4;

// Shares one write port between the DMAs of the store queue and of the vector queue.
class WriteArbiter {
 public:
  enum Source { kStore, kVector, kMasters };
  using Dmas = std::array<const WriteDma*, kMasters>;

  explicit WriteArbiter(const Config& config)
      : masters_{Master(config), Master(config)}, owners_(kMasters * kMasterBursts) {}

  bool aw_ready(int master) const { return masters_[master].bursts.writable(); }
  bool w_ready(int master) const { return masters_[master].beats.writable(); }
  bool aw_valid() const { return aw_valid_; }
  const Burst& aw() const { return aw_; }
  bool w_valid() const { return left_ && masters_[turn_].beats.readable(); }
  bool w_last() const { return left_ == 1; }
  // Whose burst is acknowledged next.
  int owner() const { return owners_.front(); }

  // The masters' addresses and beats are taken if they may be, and so is a response.
  bool cycle(const Dmas& dmas, bool aw_ready, bool w_ready, bool response) {
    if (rests(dmas)) return false;
    const bool w = w_valid() && w_ready;
    const bool first = masters_[kStore].complete(), second = masters_[kVector].complete();
    const bool grant = grants(w, aw_ready);
    bool changes = w || grant || response || (aw_valid_ && aw_ready);
    if (w) {
      masters_[turn_].beats.read();
      --left_;
    }
    if (grant) {
      turn_ = first && second ? 1 - turn_ : second;
      Master& chosen = masters_[turn_];
      aw_ = chosen.bursts.front();
      left_ = aw_.beats;
      chosen.bursts.read();
      --chosen.ended;
      owners_.write(turn_);
    }
    aw_valid_ = grant || (aw_valid_ && !aw_ready);
    for (int i = 0; i < kMasters; ++i) {
      Master& master = masters_[i];
      if (dmas[i]->aw_valid() && master.bursts.writable()) {
        master.bursts.write(dmas[i]->aw());
        ++under_way_;
      }
      if (comes(i, dmas)) {
        master.beats.write({});
        master.ended += dmas[i]->w_last();
      }
      changes |= master.bursts.commit() | master.beats.commit();
    }
    if (response) {
      owners_.read();
      --under_way_;
    }
    return owners_.commit() | changes;
  }

  // For how many cycles, this one included, it does the same if all around it do; a beat leaves in
  // each of them if `w`.
  int64_t streak(const Dmas& dmas, bool aw_ready, bool w) const {
    if (rests(dmas)) return kNever;
    if (grants(w, aw_ready) || (aw_valid_ && aw_ready)) return 1;
    int64_t cycles = w ? left_ - 1 : kNever;
    for (int i = 0; i < kMasters; ++i) {
      const Master& master = masters_[i];
      const bool in = comes(i, dmas), out = w && turn_ == i;
      const bool ends = in && dmas[i]->w_last(), waits = dmas[i]->w_valid() && !in;
      if ((dmas[i]->aw_valid() && master.bursts.writable()) || ends || (waits && out)) return 1;
      cycles = std::min(cycles, master.beats.streak(in, out));
      if (in && !out) cycles = std::min(cycles, master.beats.room());
    }
    return cycles;
  }
  // So many such cycles at once.
  void repeat(int64_t cycles, const Dmas& dmas, bool w) {
    if (rests(dmas)) return;
    for (int i = 0; i < kMasters; ++i) {
      masters_[i].beats.repeat(cycles, comes(i, dmas), w && turn_ == i);
    }
    if (w) left_ -= cycles;
  }

 private:
  struct Master {
    explicit Master(const Config& config)
        : bursts(kMasterBursts), beats(2 * config.write_burst_beats) {}
    bool complete() const { return ended && bursts.readable(); }

    Fifo<Burst> bursts;
    BufferedFifo<Nothing> beats;
    int64_t ended = 0;  // bursts all of whose beats have come
  };

  bool rests(const Dmas& dmas) const {
    return !under_way_ && !dmas[kStore]->aw_valid() && !dmas[kVector]->aw_valid();
  }
  // A burst is sent next.
  bool grants(bool w, bool aw_ready) const {
    return (masters_[kStore].complete() || masters_[kVector].complete()) && left_ == w &&
           (!aw_valid_ || aw_ready);
  }
  bool comes(int master, const Dmas& dmas) const {
    return dmas[master]->w_valid() && masters_[master].beats.writable();
  }

  Master masters_[kMasters];
  Fifo<int> owners_;
  Burst aw_;
  int64_t under_way_ = 0;
  int64_t left_ = 0;  // beats of the burst being sent
  int turn_ = 0;
  bool aw_valid_ = false;
};

class Core {
  // Read ports with several channels, and the masters of what the first of them, or the only
  // channel, is shared by.
  enum Port { kShared, kStreams };
  enum Reader { kFetch, kLoad, kStream };

 public:
  // `program` has so many `commands`, and lies at `address` of the card's memory.
  Core(const Config& config, const Timing& timing, const uint8_t* program, int64_t address,
       int64_t commands, int64_t* counters, int64_t* issued, int64_t* ended, int64_t* stage)
      : config_(config),
        program_(program),
        counters_(counters),
        issued_(issued),
        ended_(ended),
        stage_(*stage),
        channels_(config.channels, Channel(timing)),
        fetcher_(config, address, commands),
        queues_{CommandQueue(config, kLoadsUnderWay), CommandQueue(config, kComputesUnderWay),
                CommandQueue(config, kWritersUnderWay), CommandQueue(config, kWritersUnderWay),
                CommandQueue(config, kLoadsUnderWay)},
        read_arbiter_(ReadBuffer::room(config)),
        load_buffer_(config),
        stream_buffer_(config),
        write_arbiter_(config),
        load_(config),
        stream_(config),
        engine_(config),
        store_(config),
        update_(config),
        vector_(config),
        store_dma_(config),
        vector_dma_(config) {
    if (config.channels > 1) {
      reads_ = std::make_unique<StripedReads>(config_, channels_);
      writes_ = std::make_unique<WriteStriper>(config_, channels_);
    }
  }

  Outcome run(int64_t limit) {
    const Outcome outcome = advance(limit);
    counters_[Counter::USEFUL_MACS] = engine_.useful();
    counters_[Counter::EDGE_MACS] = engine_.edge();
    counters_[Counter::FILLER_MACS] = engine_.filler();
    return outcome;
  }

 private:
  Outcome advance(int64_t limit) {
    while (!finished_) {
      if (now_ >= limit) return kTimedOut;
      cycles_ = 1;
      const bool changes = cycle(limit);
      int64_t next = now_ + cycles_;
      if (!changes && !finished_) {
        next = next_event();
        if (next == kNever) return kHangs;
        next = std::min(next, limit);
      }
      count(next);
      now_ = next;
    }
    return kFinished;
  }

  // Advances all registers by a cycle, or by `cycles_` that are alike, which end before `limit`;
  // returns whether any but times changes.
  bool cycle(int64_t limit) {
    for (Channel& channel : channels_) channel.drive(now_);
    if (processor_changed_) note_status();
    engine_busy_ = engine_.busy();

    // Memory's side of the ports.
    Channel& only = channels_[0];
    const ReadDma& load_dma = load_.dma();
    const ReadDma& stream_dma = stream_.dma();
    const Burst* const ar = read_arbiter_.ar();
    const bool ar_ready = reads_ ? ar && (*reads_)[kShared].ar_ready(*ar) : only.ar_ready();
    const bool r = reads_ ? (*reads_)[kShared].r_valid() : only.r_valid();
    const bool r_last = r && (reads_ ? (*reads_)[kShared].r_last() : only.r_last());
    const Burst* const stream_ar =
        streams_apart() && stream_dma.ar_valid() ? &stream_dma.ar() : nullptr;
    const bool stream_ar_ready = stream_ar && (*reads_)[kStreams].ar_ready(*stream_ar);
    const bool aw_ready = writes_ ? writes_->aw_ready() : only.aw_ready();
    const bool w_ready = writes_ ? writes_->w_ready() : only.w_ready();
    const bool b = writes_ ? writes_->b_valid() : only.b_valid();

    // Which commands are issued, and which end.
    const bool dones[kQueues] = {load_.done(), engine_.done(now_),
                                 store_completion_.done(store_dma_),
                                 vector_completion_.done(vector_dma_), stream_.done()};
    const CommandQueue::Item* starts[kQueues];
    for (int i = 0; i < kQueues; ++i) {
      starts[i] = queues_[i].issuable();
      if (starts[i] && !unit_ready(i, starts[i]->header.opcode)) starts[i] = nullptr;
    }
    const LoadBody* const load = issued(starts, Queue::LOAD, Opcode::LOAD, &Command::load);
    const LoadBody* const stream = issued(starts, Queue::STREAM, Opcode::LOAD, &Command::load);
    const ComputeBody* const compute =
        issued(starts, Queue::COMPUTE, Opcode::COMPUTE, &Command::compute);
    const StoreBody* const store = issued(starts, Queue::STORE, Opcode::STORE, &Command::store);
    const UpdateBody* const update =
        issued(starts, Queue::STORE, Opcode::UPDATE, &Command::update);
    const VectorBody* const vector =
        issued(starts, Queue::VECTOR, Opcode::VECTOR, &Command::vector);

    // Beats on their way in, and out.
    const bool to_update = queues_[Queue::STORE].opcode() == Opcode::UPDATE;
    const int64_t o_free = engine_.o_free(now_);
    const bool vector_ready = vector_.beats_ready(now_);
    const bool update_ready = update_.state_ready(o_free <= now_);
    load_.settle(load_buffer_.beat(), vector_ready, update_ready);
    stream_.settle(streams_apart() ? (*reads_)[kStreams].r_valid() : stream_buffer_.beat(),
                   vector_ready, update_ready);
    const bool tile = load_.offers_stream() || stream_.offers_stream();
    const bool state = load_.offers_state() || stream_.offers_state();
    const ReadDma& fetch_dma = fetcher_.dma();
    read_arbiter_.settle({fetch_dma.ar_valid() ? &fetch_dma.ar() : nullptr,
                          load_buffer_.ar(load_dma),
                          streams_apart() ? nullptr : stream_buffer_.ar(stream_dma)},
                         ar_ready);
    if (reads_) {
      reads_->settle();
      (*reads_)[kShared].settle(true);
      if (streams_apart()) (*reads_)[kStreams].settle(stream_.takes_beat());
    }
    const bool fetch_r = r && read_arbiter_.owner() == kFetch;
    const bool load_r = r && read_arbiter_.owner() == kLoad;
    const bool stream_r = r && read_arbiter_.owner() == kStream;
    const Output stored = output(store_dma_, WriteArbiter::kStore, b,
                                 to_update ? update_.descriptor() : store_.descriptor(),
                                 to_update ? update_.data_valid() : store_.data_valid());
    const Output computed = output(vector_dma_, WriteArbiter::kVector, b, vector_.descriptor(),
                                   vector_.data_valid());
    const bool stores = store_.done() || update_.done(), computes = vector_.done();
    const bool aw = write_arbiter_.aw_valid() && aw_ready;
    const bool w = write_arbiter_.w_valid() && w_ready;
    const bool load_takes = load_.takes_beat(), stream_takes = stream_.takes_beat();
    counters_[Counter::READ_BEATS] += load_takes + stream_takes;
    counters_[Counter::WRITE_BEATS] += w;

    // Beats that stream, one a cycle, while nothing else happens.
    bool commands = false;
    for (int i = 0; i < kQueues; ++i) commands |= starts[i] || dones[i];
    const bool updates = state && !update_.command_ready();
    const bool others = updates || stored.data_taken || stores || computes || b || commands ||
                        fetch_r || stream_ar_ready;
    if (rests_ && (load_takes || stream_takes || computed.data_taken) && !others) {
      const Beats beats{r, load_r, load_takes, stream_r, stream_takes, tile,
                        computed.data_ready, computed.data_taken, w};
      int64_t cycles = read_arbiter_.streak(ar_ready, r_last);
      if (cycles > 1) cycles = std::min(cycles, buffers_streak(beats));
      if (cycles > 1) cycles = std::min(cycles, writes_streak(stored, computed, aw_ready, w));
      if (cycles > 1) {
        cycles = std::min(cycles, streak(beats, {ar, stream_ar}, computed.descriptor_ready));
      }
      cycles = std::min(cycles, limit - now_);
      if (cycles > 1) {
        repeat(cycles, beats);
        return true;
      }
    }

    // All registers.
    const bool takes_fetch = read_arbiter_.grants(kFetch);
    const bool takes_load = read_arbiter_.grants(kLoad);
    const bool takes_stream = read_arbiter_.grants(kStream);
    bool changes = cycle_memory({ar_ready ? ar : nullptr, stream_ar_ready ? stream_ar : nullptr},
                                r, aw, w, b);
    changes |= read_arbiter_.cycle(ar_ready, r_last);
    changes |= load_buffer_.cycle(load_dma, takes_load, load_r, load_takes);
    if (!streams_apart()) {
      changes |= stream_buffer_.cycle(stream_dma, takes_stream, stream_r, stream_takes);
    }
    changes |= load_.cycle(load, takes_load, now_);
    changes |= stream_.cycle(stream, takes_stream || stream_ar_ready, now_);
    changes |= engine_.cycle(compute, compute ? starts[Queue::COMPUTE]->header.stage : 0, now_);
    changes |= vector_.cycle(vector, tile, computed.descriptor_ready, computed.data_ready, now_);
    changes |= write_arbiter_.cycle(dmas_, aw_ready, w_ready, b);
    store_completion_.cycle(stores, store_dma_);
    vector_completion_.cycle(computes, vector_dma_);
    changes |= cycle_dma(store_dma_, stored) | cycle_dma(vector_dma_, computed);
    bool moves = store_.cycle(store, stored.descriptor_ready, stored.data_ready && !to_update,
                              o_free, now_);
    moves |= update_.cycle(update, state, stored.descriptor_ready && to_update,
                           stored.data_ready && to_update, o_free, now_);
    changes |= stores || computes;
    store_working_ = store || update || (store_working_ && !stores);
    // With nothing new to it, what rests goes on resting.
    if (processor_changed_ || commands || takes_fetch || fetch_r) {
      processor_changed_ = cycle_processor(starts, dones, takes_fetch, fetch_r);
    }
    rests_ = !moves && !processor_changed_;
    return changes || r || moves || processor_changed_;
  }

  // Handshakes of a cycle in which nothing but beats moves.
  struct Beats {
    bool r;             // from memory, through the arbiter
    bool load_r;        // of these, into the buffer of scratchpad loads
    bool load_takes;    // from there
    bool stream_r;      // into that of streams
    bool stream_takes;  // from there, or from their own port
    bool tile;          // on offer to the vector unit
    bool data_ready;    // for those of the vector unit
    bool data_taken;    // from there
    bool w;             // to memory
  };

  // For how many cycles, this one included, just these beats move; `ars` wait, if any.
  int64_t streak(const Beats& beats, const StripedReads::Bursts& ars,
                 bool descriptor_ready) const {
    int64_t cycles =
        std::min({engine_.next_event(), store_.next_event(), update_.next_event()}) - now_;
    cycles = std::min({cycles, load_.streak(now_), stream_.streak(now_)});
    if (cycles < 2) return 1;
    cycles = std::min(
        cycles, vector_.streak(beats.tile, descriptor_ready, beats.data_ready, now_));
    if (cycles < 2) return 1;
    if (reads_) {
      // A beat that waits goes on when there's room.
      if (write_arbiter_.w_valid() && !beats.w) return 1;
      cycles = std::min({cycles, reads_->streak(ars), writes_->streak(beats.w)});
    }
    for (size_t i = 0; i < channels_.size() && cycles > 1; ++i) {
      if (!channels_[i].idle()) {
        cycles = std::min(cycles, channels_[i].streak(now_, reads(i, beats), writes(i, beats)));
      }
    }
    return cycles;
  }

  // So many such cycles at once.
  void repeat(int64_t cycles, const Beats& beats) {
    // By what moves: whatever tells that comes last.
    load_.repeat(cycles);
    stream_.repeat(cycles);
    vector_.repeat(cycles, beats.tile, beats.data_ready, now_);
    load_buffer_.repeat(cycles, beats.load_r, beats.load_takes);
    if (!streams_apart()) stream_buffer_.repeat(cycles, beats.stream_r, beats.stream_takes);
    vector_dma_.repeat(cycles, beats.data_taken);
    write_arbiter_.repeat(cycles, dmas_, beats.w);
    std::array<bool, kMostChannels> read, written;
    for (size_t i = 0; i < channels_.size(); ++i) {
      read[i] = reads(i, beats);
      written[i] = writes(i, beats);
    }
    if (reads_) {
      reads_->repeat(cycles);
      writes_->repeat(cycles, beats.w);
    }
    for (size_t i = 0; i < channels_.size(); ++i) {
      if (read[i] || written[i]) channels_[i].repeat(now_, cycles, read[i], written[i]);
    }
    counters_[Counter::READ_BEATS] += (cycles - 1) * (beats.load_takes + beats.stream_takes);
    counters_[Counter::WRITE_BEATS] += (cycles - 1) * beats.w;
    cycles_ = cycles;
  }

  // A queue's results on their way to memory in this cycle.
  struct Output {
    const Descriptor* descriptor;  // on offer, if any
    bool descriptor_ready, data_ready, data_taken, aw_ready, w_ready, response;
  };

  Output output(const WriteDma& dma, WriteArbiter::Source source, bool b,
                const Descriptor* descriptor, bool data) const {
    const bool w_ready = write_arbiter_.w_ready(source), data_ready = dma.data_ready(w_ready);
    return {descriptor, dma.descriptor_ready(), data_ready, data && data_ready,
            write_arbiter_.aw_ready(source), w_ready, b && write_arbiter_.owner() == source};
  }

  static bool cycle_dma(WriteDma& dma, const Output& output) {
    return dma.cycle(output.descriptor_ready ? output.descriptor : nullptr, output.aw_ready,
                     output.w_ready, output.data_taken, output.response);
  }

  // For how many cycles, this one included, the buffers of what is read do the same.
  int64_t buffers_streak(const Beats& beats) const {
    const int64_t cycles = load_buffer_.streak(load_.dma(), beats.load_r, beats.load_takes);
    if (streams_apart()) return cycles;
    return std::min(cycles,
                    stream_buffer_.streak(stream_.dma(), beats.stream_r, beats.stream_takes));
  }

  // For how many cycles, this one included, what is written goes the same way.
  int64_t writes_streak(const Output& stored, const Output& computed, bool aw_ready,
                        bool w) const {
    return std::min(
        {store_dma_.streak(stored.aw_ready, stored.w_ready, stored.data_taken),
         vector_dma_.streak(computed.aw_ready, computed.w_ready, computed.data_taken),
         write_arbiter_.streak(dmas_, aw_ready, w)});
  }

  // Whether a beat is read from this channel, or written to it.
  bool reads(size_t channel, const Beats& beats) const {
    return reads_ ? reads_->reads(channel) : beats.r;
  }
  bool writes(size_t channel, const Beats& beats) const {
    return writes_ ? writes_->writes(channel) : beats.w;
  }

  // `ars`: the bursts that are taken.
  bool cycle_memory(const StripedReads::Bursts& ars, bool r, bool aw, bool w, bool b) {
    if (reads_) {
      const bool changes = reads_->cycle(ars, now_);
      return writes_->cycle(aw ? &write_arbiter_.aw() : nullptr, w,
                            w && write_arbiter_.w_last(), now_) |
             changes;
    }
    Channel& only = channels_[0];
    if (r) only.take_r();
    if (w) only.take_w(now_);
    if (ars[kShared]) only.take_ar(ars[kShared]->beats, now_);
    if (aw) only.take_aw(write_arbiter_.aw().beats);
    if (b) only.take_b();
    return r || w || ars[kShared] || aw || b;
  }

  bool cycle_processor(const CommandQueue::Item* const* starts, const bool* dones,
                       bool takes_fetch, bool fetch_beat) {
    // Tokens, before anything moves.
    Tokens given[kQueues] = {};
    bool all_empty = true;
    for (int i = 0; i < kQueues; ++i) {
      all_empty &= queues_[i].empty();
      if (starts[i]) issued_[starts[i]->index] = now_;
      if (const CommandQueue::Item* const item = queues_[i].ending(dones[i])) {
        ended_[item->index] = now_;
        ++counters_[Counter::COMMANDS];
        for (int j = 0; j < kQueues; ++j) given[j][i] += item->header.signal >> j & 1;
      }
    }
    // The next command goes to its queue; FINISH waits for all of them.
    bool handed_over = false;
    if (fetcher_.valid()) {
      const int64_t index = fetcher_.index();
      Header header;
      header.read(program_ + index * kCommandBytes, 0);
      if (header.opcode == Opcode::FINISH) {
        handed_over = finished_ = all_empty;
      } else {
        CommandQueue& queue = queues_[queue_of(header, index)];
        handed_over = queue.writable();
        if (handed_over) queue.write({header, index});
      }
    }
    bool changes = fetcher_.cycle(takes_fetch, fetch_beat, handed_over);
    for (int i = 0; i < kQueues; ++i) {
      changes |= queues_[i].cycle(starts[i] != nullptr, dones[i], given[i]);
    }
    return changes;
  }

  // Whether streams have a read port of their own.
  bool streams_apart() const { return config_.read_ports > 1; }

  int64_t queue_of(const Header& header, int64_t index) const {
    switch (header.opcode) {
      case Opcode::NOP: return header.queue;
      case Opcode::LOAD: {
        const Command command(program_ + index * kCommandBytes);
        const bool streams = config_.stream_queue && command.load.target >= LoadTarget::STREAM;
        return streams ? Queue::STREAM : Queue::LOAD;
      }
      case Opcode::COMPUTE: return Queue::COMPUTE;
      case Opcode::VECTOR: return Queue::VECTOR;
      default: return Queue::STORE;
    }
  }

  bool unit_ready(int queue, int64_t opcode) const {
    switch (opcode) {
      case Opcode::LOAD: return (queue == Queue::STREAM ? stream_ : load_).command_ready();
      case Opcode::COMPUTE: return engine_.command_ready();
      case Opcode::STORE: return !store_working_ && store_.command_ready();
      case Opcode::UPDATE: return !store_working_ && update_.command_ready();
      case Opcode::VECTOR: return vector_.command_ready();
      default: return true;
    }
  }

  // The body of the command that `queue` issues in this cycle, if it's one of these.
  template <class Body>
  const Body* issued(const CommandQueue::Item* const* starts, int64_t queue, int64_t opcode,
                     Body Command::*body) {
    const CommandQueue::Item* const item = starts[queue];
    if (!item || item->header.opcode != opcode) return nullptr;
    auto& decoded = decoded_[queue];
    decoded.emplace(program_ + item->index * kCommandBytes);
    return &((*decoded).*body);
  }

  // Notes what the counters of cycles see, until something changes.
  void note_status() {
    for (int i = 0; i < kQueues; ++i) {
      busy_[i] = queues_[i].busy();
      waiting_[i] = queues_[i].waiting();
    }
    for (const int i :
         {Queue::COMPUTE, Queue::STORE, Queue::VECTOR, Queue::LOAD, Queue::STREAM}) {
      if (busy_[i]) {
        stage_ = queues_[i].stage();
        break;
      }
    }
  }

  // Counts the cycles from this one on, before `next`.
  void count(int64_t next) {
    const int64_t cycles = next - now_;
    counters_[Counter::CYCLES] += cycles;
    counters_[Counter::CYCLES_FF + stage_] += cycles;
    for (int i = 0; i < kQueues; ++i) {
      counters_[Counter::LOAD_BUSY + i] += cycles * busy_[i];
      counters_[Counter::LOAD_WAIT + i] += cycles * waiting_[i];
    }
    for (int64_t at = now_; at < next;) {
      const TensorEngine::Slots slots = engine_.slots(at);
      const int64_t end = std::min(next, engine_.slots_end());
      if (slots == TensorEngine::Slots::kMultiply) {
        counters_[Counter::MAC_SLOTS_FF + engine_.stage()] += end - at;
      } else if (slots == TensorEngine::Slots::kDrain) {
        counters_[Counter::LOST_DRAIN] += end - at;
      } else {
        counters_[engine_busy_ ? Counter::LOST_FILL : Counter::LOST_OPERAND] += end - at;
      }
      at = end;
    }
  }

  int64_t next_event() const {
    int64_t next = std::min({load_.next_event(), stream_.next_event(), engine_.next_event(),
                             store_.next_event(), update_.next_event(), vector_.next_event()});
    for (const Channel& channel : channels_) next = std::min(next, channel.next_event(now_));
    return next == kNever ? next : std::max(next, now_ + 1);
  }

  const Config& config_;
  const uint8_t* program_;
  std::optional<Command> decoded_[kQueues];
  int64_t *counters_, *issued_, *ended_;
  int64_t& stage_;  // to which cycles are attributed while nothing is under way
  std::vector<Channel> channels_;
  std::unique_ptr<StripedReads> reads_;
  std::unique_ptr<WriteStriper> writes_;
  Fetcher fetcher_;
  CommandQueue queues_[kQueues];
  ReadArbiter read_arbiter_;
  ReadBuffer load_buffer_, stream_buffer_;
  WriteArbiter write_arbiter_;
  LoadUnit load_, stream_;
  TensorEngine engine_;
  StoreUnit store_;
  UpdateUnit update_;
  VectorUnit vector_;
  WriteDma store_dma_, vector_dma_;
  WriteCompletion store_completion_, vector_completion_;
  const WriteArbiter::Dmas dmas_{&store_dma_, &vector_dma_};
  int64_t now_ = 0, cycles_ = 1;
  bool rests_ = false;  // processor, store and update units did nothing in the cycle before
  bool store_working_ = false;  // the store queue's command hasn't handed over all its beats
  bool finished_ = false, processor_changed_ = true;
  // Of this cycle, for the counters.
  bool busy_[kQueues] = {}, waiting_[kQueues] = {}, engine_busy_ = false;
};

}  // namespace sat

extern "C" {

// Returns the index of the first command whose time means nothing, or else the number of commands.
// The last one must be, and no other may be, a FINISH.
int64_t sat_cycles_check(const sat::Config* config, const uint8_t* program, int64_t commands) {
  const sat::Checks checks(*config);
  for (int64_t i = 0; i < commands; ++i) {
    const sat::Command command(program + i * sat::kCommandBytes);
    const bool is_finish = command.header.opcode == sat::Opcode::FINISH;
    if (i + 1 < commands ? !checks.passes(command) : !is_finish) return i;
  }
  return commands;
}

// Runs the `commands` of a program at `address`, for `limit` cycles at most. Fills `counters`,
// which are zeros, and notes the cycle in which each command was issued and has ended. `stage` is
// the one to which cycles are attributed while nothing is under way, before and after.
int sat_cycles_run(const sat::Config* config, const sat::Timing* timing, const uint8_t* program,
                   int64_t address, int64_t commands, int64_t limit, int64_t* counters,
                   int64_t* issued, int64_t* ended, int64_t* stage) {
  return sat::Core(*config, *timing, program, address, commands, counters, issued, ended, stage)
      .run(limit);
}

}  // extern "C"
