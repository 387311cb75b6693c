// The card around the Verilated top level: its memory, the latency and bandwidth of each AXI
// channel, and register accesses. Driven through the C functions at the end; nothing else runs in a
// cycle.
//
// SAT_CHANNELS is the number of AXI channels that the top level has.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <type_traits>
#include <vector>

#include <sys/mman.h>

#include "Vsat.h"
#include "verilated.h"
#ifdef SAT_TRACE
#include "verilated_fst_c.h"
#endif

// Mirrored by `sim.verilated.model.MemoryTiming`; of one channel.
struct sat_timing {
  uint32_t latency;        // cycles from an address to its first beat, or from last beat to response
  uint32_t bandwidth;      // beats in 1,024 cycles, reads and writes together
  uint32_t stall;          // chance in 65,536 that AR, R, AW, W or B pauses in a cycle
  uint32_t silent;         // nonzero: never answers
  uint64_t seed;
};

namespace {

constexpr uint8_t kOkay = 0;
constexpr uint8_t kDecodeError = 3;
constexpr int kRegisterTimeout = 4096;  // cycles
constexpr int kResetCycles = 8;
constexpr uint64_t kPage = SAT_PAGE_BYTES;  // memory is striped over the channels page by page

enum Kind : uint32_t { kRead = 0, kWrite = 1 };

// The ports of a channel. Those of an only one aren't numbered.
#if SAT_CHANNELS == 1
#define SAT_PORT(field) m_axi_##field
#else
#define SAT_PORT(field) m_axi_0_##field
#endif

using Data = std::remove_reference_t<decltype(Vsat::SAT_PORT(rdata))>;
using Strobes = std::remove_reference_t<decltype(Vsat::SAT_PORT(wstrb))>;
constexpr uint32_t kBeatBytes = sizeof(Data);

struct Ports {
  CData& arvalid; CData& arready; QData& araddr; CData& arlen;
  CData& rvalid; CData& rready; Data& rdata; CData& rresp; CData& rlast;
  CData& awvalid; CData& awready; QData& awaddr; CData& awlen;
  CData& wvalid; CData& wready; Data& wdata; Strobes& wstrb;
  CData& bvalid; CData& bready; CData& bresp;
};

#define SAT_PORTS(top, port)                                                        \
  Ports {                                                                           \
    top.port##_arvalid, top.port##_arready, top.port##_araddr, top.port##_arlen,    \
    top.port##_rvalid, top.port##_rready, top.port##_rdata, top.port##_rresp,       \
    top.port##_rlast,                                                               \
    top.port##_awvalid, top.port##_awready, top.port##_awaddr, top.port##_awlen,    \
    top.port##_wvalid, top.port##_wready, top.port##_wdata, top.port##_wstrb,       \
    top.port##_bvalid, top.port##_bready, top.port##_bresp                          \
  }

// In the order of the channels.
std::vector<Ports> ports_of(Vsat& top) {
  return {
#if SAT_CHANNELS == 1
      SAT_PORTS(top, m_axi),
#else
      SAT_PORTS(top, m_axi_0), SAT_PORTS(top, m_axi_1),
#if SAT_CHANNELS == 4
      SAT_PORTS(top, m_axi_2), SAT_PORTS(top, m_axi_3),
#endif
#endif
  };
}

struct Injection {
  uint64_t first, last;  // addresses, inclusive
  Kind kind;
  uint8_t response;
};

struct Unmap {
  uint64_t bytes;
  void operator()(uint8_t* memory) const { munmap(memory, bytes); }
};

// What the channels share: the card's memory, in its own addresses, and where it fails.
class Memory {
 public:
  // Zeros, of which only those written take room on the host; null if it has no room at all.
  explicit Memory(uint64_t bytes) : bytes_(bytes) {
    void* content = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    content_ = {content == MAP_FAILED ? nullptr : static_cast<uint8_t*>(content), Unmap{bytes}};
  }

  uint8_t* content() { return content_.get(); }
  void inject(const Injection& injection) { injections_.push_back(injection); }
  void clear_injections() { injections_.clear(); }

  uint8_t response_to(uint64_t address, Kind kind) const {
    for (const Injection& injection : injections_) {
      if (injection.kind == kind && injection.first <= address && address <= injection.last) {
        return injection.response;
      }
    }
    return address + kBeatBytes <= bytes_ ? kOkay : kDecodeError;
  }

 private:
  uint64_t bytes_;
  std::unique_ptr<uint8_t, Unmap> content_{nullptr, Unmap{0}};
  std::vector<Injection> injections_;
};

// One AXI channel, with every SAT_CHANNELS-th page of memory.
class Channel {
 public:
  Channel(Memory& memory, uint64_t number, const Ports& ports)
      : memory_(memory), number_(number), ports_(ports) {}

  void set_timing(const sat_timing& timing) {
    timing_ = timing;
    random_ = (timing.seed * SAT_CHANNELS + number_) * 2 + 1;
  }

  // Drives the memory's side for cycle `now`.
  void drive(uint64_t now) {
    const bool answers = !timing_.silent;
    ports_.arready = answers && reads_.size() < kQueue && !stalls();
    ports_.awready = answers && writes_.size() < kQueue && !stalls();
    credit_ = std::min<int64_t>(credit_ + timing_.bandwidth, kBurstCredit);
    // A valid once given stays until it is taken.
    if (!read_offered_ && answers && !reads_.empty() && reads_.front().ready <= now &&
        credit_ >= kBeatCost && !stalls()) {
      offer_read();
    }
    ports_.rvalid = read_offered_;
    ports_.wready = answers && !writes_.empty() && credit_ >= kBeatCost && !stalls();
    if (!response_offered_ && answers && !responses_.empty() && responses_.front().ready <= now &&
        !stalls()) {
      response_offered_ = true;
      ports_.bresp = responses_.front().code;
    }
    ports_.bvalid = response_offered_;
  }

  // What the memory makes of the handshakes of cycle `now`.
  void take(uint64_t now) {
    const bool r = ports_.rvalid && ports_.rready;
    const bool w = ports_.wvalid && ports_.wready;
    if (r) take_read();
    if (w) take_write(now);
    if (ports_.arvalid && ports_.arready) {
      reads_.push_back({card_address(ports_.araddr), ports_.arlen + 1u, now + timing_.latency});
    }
    if (ports_.awvalid && ports_.awready) {
      writes_.push_back({card_address(ports_.awaddr), ports_.awlen + 1u, now});
    }
    if (ports_.bvalid && ports_.bready) {
      response_offered_ = false;
      responses_.pop_front();
    }
  }

 private:
  struct Burst {
    uint64_t address;  // of the card
    uint32_t beats;
    uint64_t ready;  // cycle of its first beat at the earliest
  };

  struct Response {
    uint8_t code;
    uint64_t ready;
  };

  uint64_t card_address(uint64_t address) const {
    return (address / kPage * SAT_CHANNELS + number_) * kPage + address % kPage;
  }

  void offer_read() {
    const Burst& burst = reads_.front();
    read_offered_ = true;
    const uint8_t response = memory_.response_to(burst.address, kRead);
    if (response == kOkay) {
      std::memcpy(&ports_.rdata, memory_.content() + burst.address, kBeatBytes);
    } else {
      std::memset(&ports_.rdata, 0, kBeatBytes);
    }
    ports_.rresp = response;
    ports_.rlast = burst.beats == 1;
  }

  void take_read() {
    Burst& burst = reads_.front();
    read_offered_ = false;
    credit_ -= kBeatCost;
    burst.address += kBeatBytes;
    if (--burst.beats == 0) reads_.pop_front();
  }

  void take_write(uint64_t now) {
    Burst& burst = writes_.front();
    credit_ -= kBeatCost;
    const uint8_t response = memory_.response_to(burst.address, kWrite);
    if (response == kOkay) {
      const uint8_t* data = reinterpret_cast<const uint8_t*>(&ports_.wdata);
      const uint8_t* strobes = reinterpret_cast<const uint8_t*>(&ports_.wstrb);
      for (uint32_t i = 0; i < kBeatBytes; ++i) {
        if (strobes[i / 8] >> i % 8 & 1) memory_.content()[burst.address + i] = data[i];
      }
    } else {
      write_response_ = response;
    }
    burst.address += kBeatBytes;
    if (--burst.beats == 0) {
      writes_.pop_front();
      responses_.push_back({write_response_, now + timing_.latency});
      write_response_ = kOkay;
    }
  }

  bool stalls() {
    if (!timing_.stall) return false;
    random_ ^= random_ << 13;  // xorshift64
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return (random_ >> 20 & 0xFFFF) < timing_.stall;
  }

  static constexpr size_t kQueue = 64;
  static constexpr int64_t kBeatCost = 1024;
  static constexpr int64_t kBurstCredit = 16 * kBeatCost;

  Memory& memory_;
  uint64_t number_;
  Ports ports_;
  sat_timing timing_{32, 1024, 0, 0, 0};
  uint64_t random_ = 1;
  int64_t credit_ = 0;  // below zero if a read and a write used the last of it together
  std::deque<Burst> reads_, writes_;
  std::deque<Response> responses_;
  bool read_offered_ = false;
  bool response_offered_ = false;
  uint8_t write_response_ = kOkay;
};

}  // namespace

class Card {
 public:
  Card(uint64_t memory_bytes, const char* trace_file)
      : memory_(memory_bytes), context_(new VerilatedContext), top_(new Vsat(context_.get())) {
    for (const Ports& ports : ports_of(*top_)) {
      channels_.emplace_back(memory_, channels_.size(), ports);
    }
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
    // Models of blocks take leave of the thread's context, which is that of the card opened last.
    Verilated::threadContextp(context_.get());
    top_->final();
    stop_trace();
  }

  void stop_trace() {
#ifdef SAT_TRACE
    if (trace_) trace_->close();
    trace_.reset();
#endif
  }

  Memory& memory() { return memory_; }
  Channel& channel(uint32_t number) { return channels_[number]; }
  uint64_t cycles() const { return now_; }

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
  // Verilator renames the port: `interrupt` is a word of some C++ dialects.
  bool interrupt() const { return top_->__SYM__interrupt; }

  void cycle() {
    settle();
    edge();
  }

  // Drives the memory's side of the AXI ports for this cycle and lets combinational logic settle.
  void settle() {
    if (settled_) return;
    settled_ = true;
    for (Channel& channel : channels_) channel.drive(now_);
    top_->ap_clk = 0;
    top_->eval();
    dump();
  }

  // The rising edge, and what the memory makes of the handshakes before it.
  void edge() {
    for (Channel& channel : channels_) channel.take(now_);
    top_->ap_clk = 1;
    top_->eval();
    ++now_;
    dump();
    settled_ = false;
  }

  void dump() {
#ifdef SAT_TRACE
    if (trace_) trace_->dump(time_++);
#endif
  }

  Memory memory_;
  std::unique_ptr<VerilatedContext> context_;
  std::unique_ptr<Vsat> top_;
  std::vector<Channel> channels_;
#ifdef SAT_TRACE
  std::unique_ptr<VerilatedFstC> trace_;
  uint64_t time_ = 0;
#endif
  uint64_t now_ = 0;
  bool settled_ = false;
};

extern "C" {

Card* sat_create(uint64_t memory_bytes, const char* trace_file) {
  Card* card = new Card(memory_bytes, trace_file);
  if (card->memory().content()) return card;
  delete card;
  return nullptr;
}

void sat_destroy(Card* card) { delete card; }
void sat_stop_trace(Card* card) { card->stop_trace(); }
uint8_t* sat_memory(Card* card) { return card->memory().content(); }
uint64_t sat_cycles(Card* card) { return card->cycles(); }

void sat_set_timing(Card* card, uint32_t channel, const sat_timing* timing) {
  card->channel(channel).set_timing(*timing);
}

void sat_inject(Card* card, uint64_t first, uint64_t last, uint32_t kind, uint8_t response) {
  card->memory().inject({first, last, static_cast<Kind>(kind), response});
}

void sat_clear_injections(Card* card) { card->memory().clear_injections(); }

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
