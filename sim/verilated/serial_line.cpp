// The serial top level, and the host's end of its line: a transmitter and a receiver of characters
// with 8 data bits, no parity and one stop bit, bit by bit. Driven through the C functions at the
// end; the clock runs only during line_read.

#include <cstddef>
#include <cstdint>
#include <deque>

#include "Vsat.h"
#include "verilated.h"

namespace {

constexpr int kResetCycles = 8;
constexpr int kCharacterBits = 10;  // with start and stop bit

class Line {
 public:
  explicit Line(uint32_t cycles_per_bit) : cycles_per_bit_(cycles_per_bit) {
    top_.rx = 1;
    top_.rst = 1;
    for (int cycle = 0; cycle < kResetCycles; ++cycle) clock();
    top_.rst = 0;
  }
  ~Line() { top_.final(); }

  void write(const uint8_t* bytes, size_t count) {
    to_card_.insert(to_card_.end(), bytes, bytes + count);
  }

  // Returns the bytes received, at most `limit`; runs for at most `cycles` until there is one.
  size_t read(uint8_t* bytes, size_t limit, uint64_t cycles) {
    for (const uint64_t end = cycles_ + cycles; from_card_.empty() && cycles_ < end;) step();
    size_t count = 0;
    for (; count < limit && !from_card_.empty(); ++count) {
      bytes[count] = from_card_.front();
      from_card_.pop_front();
    }
    return count;
  }

  uint64_t cycles() const { return cycles_; }
  uint64_t broken() const { return broken_; }

 private:
  void clock() {
    top_.clk = 1;
    top_.eval();
    top_.clk = 0;
    top_.eval();
    ++cycles_;
  }

  void step() {
    transmit();
    clock();
    receive();
  }

  void transmit() {
    if (sent_ == 0) {
      if (sending_ == 0 && !to_card_.empty()) {
        // Stop bit, data, start bit: the lowest goes first.
        shift_out_ = 0x200u | static_cast<uint32_t>(to_card_.front()) << 1;
        to_card_.pop_front();
        sending_ = kCharacterBits;
      }
      top_.rx = sending_ ? shift_out_ & 1 : 1;
      if (sending_ == 0) return;
      shift_out_ >>= 1;
    }
    if (++sent_ == cycles_per_bit_) {
      sent_ = 0;
      --sending_;
    }
  }

  void receive() {
    if (receiving_ == 0) {
      if (top_.tx) return;
      receiving_ = kCharacterBits;
      until_sample_ = cycles_per_bit_ / 2;
    }
    if (until_sample_-- != 0) return;
    until_sample_ = cycles_per_bit_ - 1;
    shift_in_ = shift_in_ >> 1 | static_cast<uint32_t>(top_.tx) << (kCharacterBits - 1);
    if (--receiving_ != 0) return;
    if ((shift_in_ & 0x201u) == 0x200u) {
      from_card_.push_back(static_cast<uint8_t>(shift_in_ >> 1));
    } else {
      ++broken_;
    }
  }

  Vsat top_;
  const uint32_t cycles_per_bit_;
  uint64_t cycles_ = 0, broken_ = 0;
  std::deque<uint8_t> to_card_, from_card_;
  uint32_t shift_out_ = 0, sending_ = 0, sent_ = 0;  // bits left; cycles of the bit on the line
  uint32_t shift_in_ = 0, receiving_ = 0, until_sample_ = 0;
};

}  // namespace

extern "C" {

Line* line_create(uint32_t cycles_per_bit) { return new Line(cycles_per_bit); }
void line_destroy(Line* line) { delete line; }
void line_write(Line* line, const uint8_t* bytes, size_t count) { line->write(bytes, count); }
size_t line_read(Line* line, uint8_t* bytes, size_t limit, uint64_t cycles) {
  return line->read(bytes, limit, cycles);
}
uint64_t line_cycles(const Line* line) { return line->cycles(); }
uint64_t line_broken(const Line* line) { return line->broken(); }

}  // extern "C"
