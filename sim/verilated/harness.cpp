// The card around the Verilated top level: its memory, the AXI port's latency and bandwidth, and
// register accesses. Driven through the C functions at the end; nothing else runs in a cycle.

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include <sys/mman.h>

#include "Vsat.h"
#include "verilated.h"
#ifdef SAT_TRACE
#include "verilated_fst_c.h"
#endif

namespace {

constexpr uint8_t kOkay = 0;
constexpr uint8_t kDecodeError = 3;
constexpr int kRegisterTimeout = 4096;  // cycles
constexpr int kResetCycles = 8;

enum Kind : uint32_t { kRead = 0, kWrite = 1 };

struct Burst {
  uint64_t address;
  uint32_t beats;
  uint64_t ready;  // cycle of its first beat at the earliest
};

struct Response {
  uint8_t code;
  uint64_t ready;
};

struct Injection {
  uint64_t first, last;  // addresses, inclusive
  Kind kind;
  uint8_t response;
};

struct Unmap {
  uint64_t bytes;
  void operator()(uint8_t* memory) const { munmap(memory, bytes); }
};
using Memory = std::unique_ptr<uint8_t, Unmap>;

// Zeros, of which only those written take room on the host; null if it has no room at all.
Memory map_memory(uint64_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return Memory(memory == MAP_FAILED ? nullptr : static_cast<uint8_t*>(memory), Unmap{bytes});
}

}  // namespace

// Mirrored by `sim.verilated.model.MemoryTiming`.
struct sat_timing {
  uint32_t latency;        // cycles from an address to its first beat, or from last beat to response
  uint32_t bandwidth;      // beats in 1,024 cycles, reads and writes together
  uint32_t stall;          // chance in 65,536 that a channel pauses in a cycle
  uint32_t silent;         // nonzero: memory never answers
  uint64_t seed;
};

class Card {
 public:
  Card(uint64_t memory_bytes, const char* trace_file)
      : memory_(map_memory(memory_bytes)),
        memory_bytes_(memory_bytes),
        context_(new VerilatedContext),
        top_(new Vsat(context_.get())) {
#ifdef SAT_TRACE
    if (trace_file) {
      context_->traceEverOn(true);
      trace_.reset(new VerilatedFstC);
      top_->trace(trace_.get(), 99);
      trace_->open(trace_file);
    }
#else
    (void)trace_file;
#endif
    top_->ap_rst_n = 0;
    for (int i = 0; i < kResetCycles; ++i) cycle();
    top_->ap_rst_n = 1;
    cycle();
  }

  ~Card() {
    top_->final();
    stop_trace();
  }

  void stop_trace() {
#ifdef SAT_TRACE
    if (trace_) trace_->close();
    trace_.reset();
#endif
  }

  bool valid() const { return memory_ != nullptr; }
  uint8_t* memory() { return memory_.get(); }
  uint64_t cycles() const { return now_; }

  void set_timing(const sat_timing& timing) {
    timing_ = timing;
    random_ = timing.seed * 2 + 1;
  }

  void inject(const Injection& injection) { injections_.push_back(injection); }
  void clear_injections() { injections_.clear(); }

  bool read_register(uint32_t offset, uint32_t* value) {
    top_->s_axi_control_araddr = offset;
    top_->s_axi_control_arvalid = 1;
    top_->s_axi_control_rready = 1;
    for (int i = 0; i < kRegisterTimeout; ++i) {
      settle();
      const bool accepted = top_->s_axi_control_arvalid && top_->s_axi_control_arready;
      const bool answered = top_->s_axi_control_rvalid;
      if (answered) *value = top_->s_axi_control_rdata;
      edge();
      if (accepted) top_->s_axi_control_arvalid = 0;
      if (answered) {
        top_->s_axi_control_rready = 0;
        return true;
      }
    }
    return false;
  }

  bool write_register(uint32_t offset, uint32_t value) {
    top_->s_axi_control_awaddr = offset;
    top_->s_axi_control_awvalid = 1;
    top_->s_axi_control_wdata = value;
    top_->s_axi_control_wstrb = 0xF;
    top_->s_axi_control_wvalid = 1;
    top_->s_axi_control_bready = 1;
    for (int i = 0; i < kRegisterTimeout; ++i) {
      settle();
      const bool address = top_->s_axi_control_awvalid && top_->s_axi_control_awready;
      const bool data = top_->s_axi_control_wvalid && top_->s_axi_control_wready;
      const bool answered = top_->s_axi_control_bvalid;
      edge();
      if (address) top_->s_axi_control_awvalid = 0;
      if (data) top_->s_axi_control_wvalid = 0;
      if (answered) {
        top_->s_axi_control_bready = 0;
        return true;
      }
    }
    return false;
  }

  bool wait_interrupt(uint64_t limit) {
    for (uint64_t i = 0; i < limit; ++i) {
      if (interrupt()) return true;
      cycle();
    }
    return interrupt();
  }

 private:
  static constexpr uint32_t kBeatBytes = sizeof(Vsat::m_axi_rdata);

  // Verilator renames the port: `interrupt` is a word of some C++ dialects.
  bool interrupt() const { return top_->__SYM__interrupt; }

  void cycle() {
    settle();
    edge();
  }

  // Drives the memory's side of the AXI port for this cycle and lets combinational logic settle.
  void settle() {
    if (settled_) return;
    settled_ = true;
    const bool answers = !timing_.silent;
    top_->m_axi_arready = answers && reads_.size() < kQueue && !stalls();
    top_->m_axi_awready = answers && writes_.size() < kQueue && !stalls();
    credit_ = credit_ + timing_.bandwidth < kBurstCredit ? credit_ + timing_.bandwidth : kBurstCredit;
    // A valid once given stays until it is taken.
    if (!read_offered_ && answers && !reads_.empty() && reads_.front().ready <= now_ &&
        credit_ >= kBeatCost && !stalls()) {
      offer_read();
    }
    top_->m_axi_rvalid = read_offered_;
    top_->m_axi_wready =
        answers && !writes_.empty() && credit_ >= kBeatCost && !stalls();
    if (!response_offered_ && answers && !responses_.empty() && responses_.front().ready <= now_ &&
        !stalls()) {
      response_offered_ = true;
      top_->m_axi_bresp = responses_.front().code;
    }
    top_->m_axi_bvalid = response_offered_;
    top_->ap_clk = 0;
    top_->eval();
    dump();
  }

  // The rising edge, and what the memory makes of the handshakes before it.
  void edge() {
    const bool ar = top_->m_axi_arvalid && top_->m_axi_arready;
    const bool r = top_->m_axi_rvalid && top_->m_axi_rready;
    const bool aw = top_->m_axi_awvalid && top_->m_axi_awready;
    const bool w = top_->m_axi_wvalid && top_->m_axi_wready;
    const bool b = top_->m_axi_bvalid && top_->m_axi_bready;
    if (r) take_read();
    if (w) take_write();
    if (ar) reads_.push_back({top_->m_axi_araddr, top_->m_axi_arlen + 1u, now_ + timing_.latency});
    if (aw) {
      writes_.push_back({top_->m_axi_awaddr, top_->m_axi_awlen + 1u, now_});
    }
    if (b) {
      response_offered_ = false;
      responses_.pop_front();
    }
    top_->ap_clk = 1;
    top_->eval();
    ++now_;
    dump();
    settled_ = false;
  }

  void offer_read() {
    const Burst& burst = reads_.front();
    read_offered_ = true;
    const uint8_t response = response_to(burst.address, kRead);
    if (response == kOkay) {
      std::memcpy(&top_->m_axi_rdata, memory_.get() + burst.address, kBeatBytes);
    } else {
      std::memset(&top_->m_axi_rdata, 0, kBeatBytes);
    }
    top_->m_axi_rresp = response;
    top_->m_axi_rlast = burst.beats == 1;
  }

  void take_read() {
    Burst& burst = reads_.front();
    read_offered_ = false;
    credit_ -= kBeatCost;
    burst.address += kBeatBytes;
    if (--burst.beats == 0) reads_.pop_front();
  }

  void take_write() {
    Burst& burst = writes_.front();
    credit_ -= kBeatCost;
    const uint8_t response = response_to(burst.address, kWrite);
    if (response == kOkay) {
      const uint8_t* data = reinterpret_cast<const uint8_t*>(&top_->m_axi_wdata);
      const uint8_t* strobes = reinterpret_cast<const uint8_t*>(&top_->m_axi_wstrb);
      for (uint32_t i = 0; i < kBeatBytes; ++i) {
        if (strobes[i / 8] >> i % 8 & 1) memory_.get()[burst.address + i] = data[i];
      }
    } else {
      write_response_ = response;
    }
    burst.address += kBeatBytes;
    if (--burst.beats == 0) {
      writes_.pop_front();
      responses_.push_back({write_response_, now_ + timing_.latency});
      write_response_ = kOkay;
    }
  }

  uint8_t response_to(uint64_t address, Kind kind) const {
    for (const Injection& injection : injections_) {
      if (injection.kind == kind && injection.first <= address && address <= injection.last) {
        return injection.response;
      }
    }
    return address + kBeatBytes <= memory_bytes_ ? kOkay : kDecodeError;
  }

  bool stalls() {
    if (!timing_.stall) return false;
    random_ ^= random_ << 13;  // xorshift64
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return (random_ >> 20 & 0xFFFF) < timing_.stall;
  }

  void dump() {
#ifdef SAT_TRACE
    if (trace_) trace_->dump(time_++);
#endif
  }

  static constexpr size_t kQueue = 64;
  static constexpr int64_t kBeatCost = 1024;
  static constexpr int64_t kBurstCredit = 16 * kBeatCost;

  Memory memory_;
  uint64_t memory_bytes_;
  std::unique_ptr<VerilatedContext> context_;
  std::unique_ptr<Vsat> top_;
#ifdef SAT_TRACE
  std::unique_ptr<VerilatedFstC> trace_;
  uint64_t time_ = 0;
#endif
  sat_timing timing_{32, 1024, 0, 0, 0};
  uint64_t random_ = 1;
  uint64_t now_ = 0;
  int64_t credit_ = 0;  // below zero where a read and a write beat take the last of it together
  bool settled_ = false;
  std::deque<Burst> reads_, writes_;
  std::deque<Response> responses_;
  std::vector<Injection> injections_;
  bool read_offered_ = false;
  bool response_offered_ = false;
  uint8_t write_response_ = kOkay;
};

extern "C" {

Card* sat_create(uint64_t memory_bytes, const char* trace_file) {
  Card* card = new Card(memory_bytes, trace_file);
  if (card->valid()) return card;
  delete card;
  return nullptr;
}

void sat_destroy(Card* card) { delete card; }
void sat_stop_trace(Card* card) { card->stop_trace(); }
uint8_t* sat_memory(Card* card) { return card->memory(); }
uint64_t sat_cycles(Card* card) { return card->cycles(); }
void sat_set_timing(Card* card, const sat_timing* timing) { card->set_timing(*timing); }

void sat_inject(Card* card, uint64_t first, uint64_t last, uint32_t kind, uint8_t response) {
  card->inject({first, last, static_cast<Kind>(kind), response});
}

void sat_clear_injections(Card* card) { card->clear_injections(); }

// Both return 1, or 0 if the register port didn't answer in time.
int sat_read_register(Card* card, uint32_t offset, uint32_t* value) {
  return card->read_register(offset, value);
}

int sat_write_register(Card* card, uint32_t offset, uint32_t value) {
  return card->write_register(offset, value);
}

// Runs until the interrupt is high (returns 1) or `limit` cycles have passed (0).
int sat_wait_interrupt(Card* card, uint64_t limit) { return card->wait_interrupt(limit); }

}  // extern "C"
