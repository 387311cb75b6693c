// Stand-in for what XRT tells of an xclbin.
#pragma once

#include "../xrt/xrt_device.h"

namespace xrt {

class xclbin {
 public:
  class mem {
   public:
    explicit mem(int32_t index) : index_(index) {}
    int32_t get_index() const { return index_; }

   private:
    int32_t index_;
  };

  class arg {
   public:
    arg() = default;
    explicit arg(int32_t memory) : valid_(true), memories_{mem(memory)} {}
    explicit operator bool() const { return valid_; }
    std::vector<mem> get_mems() const { return memories_; }

   private:
    bool valid_ = false;
    std::vector<mem> memories_;
  };

  class ip {
   public:
    std::vector<arg> get_args() const;
  };

  explicit xclbin(const std::string& file);
  std::vector<ip> get_ips(const std::string& name) const;
};

}  // namespace xrt
