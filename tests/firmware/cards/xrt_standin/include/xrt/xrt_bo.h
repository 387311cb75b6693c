// Stand-in for XRT's buffers.
#pragma once

#include "xrt_device.h"

namespace xrt {

using memory_group = uint32_t;

class bo {
 public:
  enum class flags : uint32_t { normal = 0, device_only = 1 << 28 };
  bo(const device& device, size_t size, flags flags, memory_group group);
  uint64_t address() const;
  void write(const void* source, size_t size, size_t seek);
  void read(void* destination, size_t size, size_t skip);

 private:
  struct Range;
  std::shared_ptr<Range> range_;
};

}  // namespace xrt
