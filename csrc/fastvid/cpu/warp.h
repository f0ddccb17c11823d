// CPU kernels of ops/warp.h. They assume valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"
#include "fastvid/core/tensor.h"

namespace fastvid::cpu {

// One image of a batch, and what becomes of it.
struct WarpSource {
  const void* image;
  void* out;
  DType dtype;
  int64_t channels;
  bool stream;  // write past the caches; rows of out must be whole cache lines
};

// Images that move by the same flow.
struct Warp {
  static constexpr int kMaxSources = 8;
  WarpSource sources[kMaxSources];
  int count;
  const float* flow;  // (2, flow_height, flow_width)
  int64_t height, width;
  int64_t flow_height, flow_width;
  int scale;           // 1, 2, 4 or 8
  bool zeros;          // what lies outside the image counts as 0
  bool channels_last;  // (height, width, channels), else (channels, height, width)
};

}  // namespace fastvid::cpu

FASTVID_DECLARE_KERNELS(
    // Computes the rows [begin, end) of every source.
    void warp_rows(const Warp& warp, int64_t begin, int64_t end);)
