// Where the pixels of a part of a row read, shared by `warp` and `warp_blend`.
//
// A block is as many neighbouring pixels as there are lanes. They mostly read from neighbouring
// places, so a block reads a window of neighbouring columns in two to four rows; only where its
// pixels go apart does it read pixel by pixel. A strip of blocks is planned without a branch and
// then sampled kind by kind, so that no branch depends on the flow.
#pragma once

#include <cstdint>

#include "fastvid/cpu/flow_rows.h"
#include "fastvid/cpu/window.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

enum Kind { kOneRow, kTwoRows, kThreeRows, kScattered, kOutside, kKinds };

constexpr int kMaxBlocks = 64;

template <class S>
constexpr int64_t longest_strip() {
  return kMaxBlocks * S::kLanes < kMaxStrip ? kMaxBlocks * S::kLanes : kMaxStrip;
}

// What lies around a strip.
struct Geometry {
  int64_t height, width;  // of the image
  int64_t y, x;           // first pixel of the strip
  int64_t count;          // pixels of the strip, at least a block
  int64_t ahead;          // elements from the flow of this row to that of the next; 0 is unknown
};

template <class S>
struct Strip {
  // Of every block: the weights of the right and of the lower neighbours, and where the upper left
  // ones are, counted from element `base` of a plane. kOutside: the points themselves in wx and wy.
  alignas(64) float wx[kMaxBlocks][S::kLanes], wy[kMaxBlocks][S::kLanes];
  alignas(64) int32_t column[kMaxBlocks][S::kLanes], row[kMaxBlocks][S::kLanes];
  int32_t base[kMaxBlocks];
  // Not 0: a lane of the block reads from the second row of the window, from the third, from
  // outside the window.
  alignas(64) uint16_t second[kMaxBlocks], third[kMaxBlocks], apart[kMaxBlocks];
  // Bit b: block b is of this kind.
  uint64_t kinds[kKinds];
  int64_t count;

  int blocks() const { return static_cast<int>((count + S::kLanes - 1) / S::kLanes); }
  // Pixels before block b. The last block overlaps the one before; it computes the same again.
  int64_t offset(int b) const {
    const int64_t at = int64_t{b} * S::kLanes;
    return at < count - S::kLanes ? at : count - S::kLanes;
  }
};

// Finds the window of block b, whose upper left neighbours are at (x0, y0).
template <class S>
FASTVID_INLINE void plan_window(Strip<S>& strip, const Geometry& g, int b, typename S::I x0,
                                typename S::I y0) {
  using I = typename S::I;
  const auto width = static_cast<int32_t>(g.width);
  const I left = S::window_start(x0, width - S::kWidth);
  // Rows mostly rise or fall along a block.
  const I top = S::min(S::from_first(y0), S::from_last(y0));
  const I column = S::sub(x0, left), row = S::sub(y0, top);
  S::store(strip.column[b], column);
  S::store(strip.row[b], row);
  strip.base[b] = S::first(S::add(S::mul(top, S::splat(width)), left));
  strip.second[b] = S::above(row, 0);
  strip.third[b] = S::above(row, 1);
  strip.apart[b] = S::above(row, 2) | S::above(column, S::kWidth - 2);
}

template <class S, bool kZeros>
FASTVID_INLINE void plan_block(Strip<S>& strip, const Geometry& g, int b, typename S::F x,
                               typename S::F y) {
  using F = typename S::F;
  using I = typename S::I;
  const auto right = static_cast<float>(g.width - 1), bottom = static_cast<float>(g.height - 1);
  if (kZeros && __builtin_expect(!S::all_inside(x, y, right, bottom), 0)) {
    S::store(strip.wx[b], x);
    S::store(strip.wy[b], y);
    strip.kinds[kOutside] |= uint64_t{1} << b;
    return;
  }
  x = S::min(S::max(x, S::splat(0.0f)), S::splat(right));
  y = S::min(S::max(y, S::splat(0.0f)), S::splat(bottom));
  // The last column and row are the right and lower neighbours of those before.
  I x0 = S::min(S::truncate(x), S::splat(static_cast<int>(g.width) - 2));
  I y0 = S::min(S::truncate(y), S::splat(static_cast<int>(g.height) - 2));
  if constexpr (S::kLanes == 1) {
    x0 = S::max(x0, 0);
    y0 = S::max(y0, 0);
  }
  S::store(strip.wx[b], F(x - S::to_float(x0)));
  S::store(strip.wy[b], F(y - S::to_float(y0)));
  if constexpr (S::kLanes == 1) {
    S::store(strip.column[b], x0);
    S::store(strip.row[b], y0);
    strip.base[b] = 0;
    strip.apart[b] = 1;
  } else {
    plan_window<S>(strip, g, b, x0, y0);
  }
}

// Sorts the blocks by kind; those outside are known.
template <class S>
inline void sort_blocks(Strip<S>& strip) {
  const int blocks = strip.blocks();
  uint64_t left = blocks == kMaxBlocks ? ~uint64_t{0} : (uint64_t{1} << blocks) - 1;
  const auto take = [&](Kind kind, uint64_t of_kind) {
    strip.kinds[kind] = of_kind & left;
    left &= ~of_kind;
  };
  take(kOutside, strip.kinds[kOutside]);
  take(kScattered, S::not_zero(strip.apart));
  take(kThreeRows, S::not_zero(strip.third));
  take(kTwoRows, S::not_zero(strip.second));
  take(kOneRow, left);
}

// u and v are the flow from the first pixel of the strip on; a NaN displaces by 0. With zero
// padding, blocks that read outside the image are kOutside.
template <class S, bool kZeros>
inline void plan_strip(Strip<S>& strip, const Geometry& g, const float* u, const float* v) {
  strip.count = g.count;
  strip.kinds[kOutside] = 0;
  const auto row = S::splat(static_cast<float>(g.y));
  const int blocks = strip.blocks();
  for (int b = 0; b < blocks; ++b) {
    const int64_t i = strip.offset(b);
    __builtin_prefetch(u + i + g.ahead);
    __builtin_prefetch(v + i + g.ahead);
    const auto column = S::splat(static_cast<float>(g.x + i)) + S::iota();
    plan_block<S, kZeros>(strip, g, b, S::displace(column, S::load(u + i)),
                          S::displace(row, S::load(v + i)));
  }
  sort_blocks(strip);
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
