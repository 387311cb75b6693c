// Stand-in for XRT's access to the registers of a kernel that it doesn't manage.
#pragma once

#include "../xrt/xrt_device.h"

namespace xrt {

class ip {
 public:
  ip(const device& device, const uuid& image, const std::string& name);
  void write_register(uint32_t offset, uint32_t data);
  uint32_t read_register(uint32_t offset) const;

 private:
  std::shared_ptr<void> context_;
};

}  // namespace xrt
