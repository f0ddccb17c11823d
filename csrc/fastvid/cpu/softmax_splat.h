// CPU kernels of ops/softmax_splat.h. They assume valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"
#include "fastvid/core/tensor.h"

namespace fastvid::cpu {

// The target rows above or on which something of a source row lands: [first, last], none where
// first > last.
struct Reach {
  int32_t first, last;
};

// One image of a batch.
struct Splat {
  static constexpr int64_t kSegment = 64;  // source pixels whose reach is known together
  enum Weights { kOnes, kLinear, kSoftmax };

  const void* image;    // (channels, height, width)
  const float* flow;    // (2, height, width)
  const float* metric;  // (height, width); unused for kOnes
  void* out;            // (channels, height, width)
  DType dtype;          // of image and out
  int64_t channels, height, width;
  Weights weights;
  bool normalise;
  float peak = 0;            // kSoftmax: the largest finite metric
  Reach* reach = nullptr;    // (height, segments + 1): of the whole row, then of each segment
  float* highest = nullptr;  // (height): the largest finite metric of a row, -FLT_MAX for none
};

inline int64_t splat_segments(int64_t width) {
  return (width + Splat::kSegment - 1) / Splat::kSegment;
}
// Floats of a row of sums: eight per pixel of whole segments and of a column on either side.
inline int64_t splat_stride(int64_t width) {
  return (splat_segments(width) * Splat::kSegment + 2) * 8;
}
// Channels are summed in groups of four, the weights among them. Groups that are summed together
// share the work of finding where their pixels land.
constexpr int64_t kSplatGroups = 4;
inline int64_t splat_groups(const Splat& splat) {
  const int64_t groups = (splat.channels + (splat.normalise ? 1 : 0) + 3) / 4;
  return groups < kSplatGroups ? groups : kSplatGroups;
}
// Floats of scratch for a band of target rows: its sums with a row above, and the scales.
inline int64_t splat_scratch(const Splat& splat, int64_t rows) {
  return splat_groups(splat) * (rows + 1) * splat_stride(splat.width) +
         rows * splat_segments(splat.width) * Splat::kSegment;
}

}  // namespace fastvid::cpu

FASTVID_DECLARE_KERNELS(
    // Fills reach, and for kSoftmax highest, of the source rows [begin, end).
    void splat_reach(const Splat& splat, int64_t begin, int64_t end);
    // Computes the rows [begin, end) of out; scratch is aligned to a cache line.
    void splat_band(const Splat& splat, int64_t begin, int64_t end, float* scratch);)
