// CPU kernels of ops/warp_blend.h. They assume valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"
#include "fastvid/core/tensor.h"

namespace fastvid::cpu {

// One pair of images of a batch. Exactly one of `planes`, `rgb` and `wide_rgb` is not null.
struct WarpBlend {
  DType dtype;                  // of images, residual and planes
  const void *image0, *image1;  // (3, height, width)
  const float* flow;            // (4, flow_height, flow_width)
  const float* mask;            // (flow_height, flow_width)
  const void* residual;         // (3, height, width) or null
  void* planes;                 // (3, height, width)
  uint8_t* rgb;                 // (height, width, 3)
  uint16_t* wide_rgb;           // (height, width, 3)
  int64_t height, width;
  int64_t flow_height, flow_width;
  int scale;    // 1, 2, 4 or 8
  bool stream;  // write planes past the caches; their rows must be whole cache lines
};

}  // namespace fastvid::cpu

FASTVID_DECLARE_KERNELS(
    // Computes the rows [begin, end) of the output.
    void warp_blend_rows(const WarpBlend& blend, int64_t begin, int64_t end);)
