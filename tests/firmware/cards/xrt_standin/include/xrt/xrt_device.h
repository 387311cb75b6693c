// Stand-in for the part of XRT's C++ interface that the XRT card uses, as its documentation has it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace xrt {

class uuid {};
class xclbin;

class device {
 public:
  explicit device(unsigned index);
  uuid load_xclbin(const xclbin& image);
};

}  // namespace xrt
