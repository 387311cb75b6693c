// What the XRT card needs of XRT's C++ interface, as C functions: registers of the kernel and
// buffers in the memory of its channels. Python's binding of XRT has no access to registers.
//
// All functions but sat_xrt_close return 0, or -1 with the reason in sat_xrt_error.

#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#if __has_include(<xrt/experimental/xrt_ip.h>)
#include <xrt/experimental/xrt_ip.h>
#include <xrt/experimental/xrt_xclbin.h>
#else
#include <experimental/xrt_ip.h>
#include <experimental/xrt_xclbin.h>
#endif

namespace {

thread_local std::string error;

// Carries out what may throw.
template <typename Action>
int guarded(const Action& action) {
  try {
    action();
    return 0;
  } catch (const std::exception& exception) {
    error = exception.what();
  } catch (...) {
    error = "unknown exception";
  }
  return -1;
}

struct Board {
  Board(unsigned index, const char* image, const char* kernel)
      : device(index),
        xclbin(std::string(image)),
        uuid(device.load_xclbin(xclbin)),
        ip(device, uuid, kernel) {
    // The kernel's pointers, one for each channel; its other arguments are in no memory.
    for (const auto& unit : xclbin.get_ips(kernel)) {
      for (const auto& argument : unit.get_args()) {
        if (!argument) continue;
        const auto memories = argument.get_mems();
        if (!memories.empty()) groups.push_back(memories.front().get_index());
      }
    }
  }

  xrt::device device;
  xrt::xclbin xclbin;
  xrt::uuid uuid;
  xrt::ip ip;
  std::vector<int32_t> groups;  // memory of each channel
  std::vector<xrt::bo> buffers;
};

}  // namespace

extern "C" {

const char* sat_xrt_error() { return error.c_str(); }

int sat_xrt_open(unsigned index, const char* image, const char* kernel, Board** board) {
  return guarded([&] { *board = std::make_unique<Board>(index, image, kernel).release(); });
}

void sat_xrt_close(Board* board) { delete board; }

int sat_xrt_channels(Board* board, uint32_t* channels) {
  return guarded([&] { *channels = static_cast<uint32_t>(board->groups.size()); });
}

// Allocates `bytes` in every channel and gives their addresses; what there was before is freed.
int sat_xrt_allocate(Board* board, uint64_t bytes, uint64_t* addresses) {
  return guarded([&] {
    board->buffers.clear();
    for (const int32_t group : board->groups) {
      // Nothing of it is kept in the host's memory: reads and writes go to the board.
      board->buffers.emplace_back(board->device, bytes, xrt::bo::flags::device_only, group);
      *addresses++ = board->buffers.back().address();
    }
  });
}

int sat_xrt_read_register(Board* board, uint32_t offset, uint32_t* value) {
  return guarded([&] { *value = board->ip.read_register(offset); });
}

int sat_xrt_write_register(Board* board, uint32_t offset, uint32_t value) {
  return guarded([&] { board->ip.write_register(offset, value); });
}

int sat_xrt_read_memory(Board* board, uint32_t channel, uint64_t offset, void* data,
                        uint64_t bytes) {
  return guarded([&] { board->buffers.at(channel).read(data, bytes, offset); });
}

int sat_xrt_write_memory(Board* board, uint32_t channel, uint64_t offset, const void* data,
                         uint64_t bytes) {
  return guarded([&] { board->buffers.at(channel).write(data, bytes, offset); });
}

}  // extern "C"
