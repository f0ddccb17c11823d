// Where a displaced pixel reads, shared by `warp` and `warp_blend`.
#pragma once

#include <cstdint>

#include "fastvid/cpu/lanes.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Coordinate of pixel `at` (and the lanes after it) displaced by `flow`. A NaN displaces by 0.
template <class S>
inline typename S::F displaced(typename S::F at, const float* flow) {
  return at + S::nan_to_zero(S::load(flow));
}

// Moves coordinates beyond the image to its edge.
template <class S>
inline typename S::F to_edge(typename S::F at, int64_t size) {
  return S::min(S::max(at, S::splat(0.0f)), S::splat(static_cast<float>(size - 1)));
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
