// CPU kernels of ops/warp.h. They assume valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"

namespace fastvid::cpu {

// One image of a batch.
struct Warp {
  const float* image;  // (channels, height, width)
  const float* flow;   // (2, flow_height, flow_width)
  float* out;          // (channels, height, width)
  int64_t channels, height, width;
  int64_t flow_height, flow_width;
  int scale;    // 1, 2, 4 or 8
  bool zeros;   // what lies outside the image counts as 0
  bool stream;  // write past the caches; out and width must be multiples of 64 bytes
};

}  // namespace fastvid::cpu

FASTVID_DECLARE_KERNELS(
    // Computes the rows [begin, end) of out.
    void warp_rows(const Warp& warp, int64_t begin, int64_t end);)
