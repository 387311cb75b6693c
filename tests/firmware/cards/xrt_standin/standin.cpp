// XRT with one board, whose registers and memory are functions that the test gives. What is wrong
// is thrown as XRT does it.

#include <fstream>
#include <map>
#include <stdexcept>
#include <system_error>

#include "experimental/xrt_ip.h"
#include "experimental/xrt_xclbin.h"
#include "xrt/xrt_bo.h"

namespace {

using ReadRegister = uint32_t (*)(uint32_t offset);
using WriteRegister = void (*)(uint32_t offset, uint32_t value);
using MoveMemory = void (*)(int write, uint32_t bank, uint64_t address, void* data, uint64_t size);

constexpr uint64_t kBase = 0x4000000000;  // of bank 0; the others follow at this distance
constexpr uint64_t kRegisterBytes = 0x1000;

ReadRegister read_register = nullptr;
WriteRegister write_register = nullptr;
MoveMemory move_memory = nullptr;
uint64_t bank_bytes = 0;
uint32_t banks = 0;
std::map<uint32_t, uint64_t> used;  // bytes taken of each bank
bool in_use = false;                // a process may open a kernel once
int denied = 0;                     // error number that opening the device gives

[[noreturn]] void fail(int number, const std::string& what) {
  throw std::system_error(number, std::generic_category(), what);
}

void check(uint64_t offset) {
  if (offset + 4 > kRegisterBytes) {
    throw std::out_of_range("Cannot read or write outside ip register space");
  }
}

}  // namespace

extern "C" {

void standin_attach(ReadRegister read, WriteRegister write, MoveMemory move, uint32_t number,
                    uint64_t bytes, int error) {
  read_register = read;
  write_register = write;
  move_memory = move;
  banks = number;
  bank_bytes = bytes;
  denied = error;
}

uint64_t standin_used() {
  uint64_t sum = in_use;
  for (const auto& [bank, bytes] : used) sum += bytes;
  return sum;
}

}  // extern "C"

namespace xrt {

device::device(unsigned index) {
  if (index) {
    throw std::runtime_error("Could not open device with index '" + std::to_string(index) + "'");
  }
  if (denied) fail(denied, "failed to open device");
}

uuid device::load_xclbin(const xclbin&) { return {}; }

xclbin::xclbin(const std::string& file) {
  std::string magic(7, ' ');
  std::ifstream(file).read(&magic[0], 7);
  if (magic != "xclbin2") throw std::runtime_error("Invalid xclbin file");
}

std::vector<xclbin::ip> xclbin::get_ips(const std::string& name) const {
  return name == "sat" ? std::vector<ip>{ip()} : std::vector<ip>{};
}

std::vector<xclbin::arg> xclbin::ip::get_args() const {
  // Scalars, which are in no memory, and then the pointers of the channels.
  std::vector<arg> arguments(3);
  for (uint32_t bank = 0; bank < banks; ++bank) arguments.emplace_back(static_cast<int32_t>(bank));
  return arguments;
}

ip::ip(const device&, const uuid&, const std::string& name) {
  if (name != "sat") fail(EINVAL, "No IP matching '" + name + "'");
  if (in_use) fail(EBUSY, "failed to open cu context");
  in_use = true;
  context_ = std::shared_ptr<void>(nullptr, [](void*) { in_use = false; });
}

void ip::write_register(uint32_t offset, uint32_t data) {
  check(offset);
  ::write_register(offset, data);
}

uint32_t ip::read_register(uint32_t offset) const {
  check(offset);
  return ::read_register(offset);
}

struct bo::Range {
  uint32_t bank;
  uint64_t bytes, start;
  ~Range() { used[bank] -= bytes; }
};

bo::bo(const device&, size_t size, flags flags, memory_group group) {
  if (flags != flags::device_only) throw std::bad_alloc();  // the host hasn't so much memory
  if (used[group] + size > bank_bytes) throw std::bad_alloc();
  // Something else is in front of it.
  range_.reset(new Range{group, size, kBase * (group + 1) + 0x10000});
  used[group] += size;
}

uint64_t bo::address() const { return range_->start; }

void bo::write(const void* source, size_t size, size_t seek) {
  if (seek + size > range_->bytes) fail(EINVAL, "attempting to write past buffer size");
  move_memory(1, range_->bank, range_->start + seek, const_cast<void*>(source), size);
}

void bo::read(void* destination, size_t size, size_t skip) {
  if (skip + size > range_->bytes) fail(EINVAL, "attempting to read past buffer size");
  move_memory(0, range_->bank, range_->start + skip, destination, size);
}

}  // namespace xrt
