// Memory that a thread keeps between calls, where fresh pages would cost as much as the work.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace fastvid {

class Arena {
 public:
  // At least this many floats, aligned to a cache line; what was there before is lost.
  float* reserve(size_t floats) {
    if (floats > size_) {
      memory_.reset();
      size_ = 0;
      memory_.reset(static_cast<float*>(
          ::operator new(floats * sizeof(float), std::align_val_t{kAlignment})));
      size_ = floats;
    }
    return memory_.get();
  }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<float, Free> memory_;
  size_t size_ = 0;
};

}  // namespace fastvid
