// Reads a planar image where a strip says.
#pragma once

#include "fastvid/cpu/warp_strip.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Planes of the image and what is between their neighbours.
template <class T>
struct Planes {
  const T* data;
  int64_t plane, height, width;
};

// C channels of block b, which reads kRows + 1 rows of a window.
template <class S, int kRows, class T, int C>
FASTVID_INLINE void sample_window(const Strip<S>& strip, const Planes<T>& image, int b,
                                  typename S::F* out) {
  using F = typename S::F;
  const F wx = S::load(strip.wx[b]), wy = S::load(strip.wy[b]);
  const auto column = S::load(strip.column[b]), row = S::load(strip.row[b]);
  const T* window = image.data + strip.base[b];
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c) {
    const T* q = window + c * image.plane;
    // Where the block below is going to read.
    __builtin_prefetch(q + (kRows + 1) * image.width + S::kWidth / 2);
    F rows[kRows + 1];
#pragma GCC unroll 4
    for (int k = 0; k <= kRows; ++k) rows[k] = S::across(q + k * image.width, column, wx);
    F above = rows[0], below = rows[1];
#pragma GCC unroll 2
    for (int k = 1; k < kRows; ++k) {
      above = S::select_above(row, k - 1, above, rows[k]);
      below = S::select_above(row, k - 1, below, rows[k + 1]);
    }
    out[c] = S::lerp(above, below, wy);
  }
}

// The four neighbours of every pixel of a block, as elements of a plane; -1 is a 0.
template <class S>
struct Taps {
  int32_t at[4][S::kLanes];
  alignas(64) float wx[S::kLanes], wy[S::kLanes];
};

template <class S>
inline void taps_inside(const Strip<S>& strip, int b, int64_t height, int64_t width,
                        Taps<S>* taps) {
  const auto right = width > 1 ? 1 : 0;
  const auto down = height > 1 ? static_cast<int32_t>(width) : 0;
  for (int i = 0; i < S::kLanes; ++i) {
    const auto top =
        static_cast<int32_t>(strip.base[b] + strip.row[b][i] * width + strip.column[b][i]);
    taps->at[0][i] = top;
    taps->at[1][i] = top + right;
    taps->at[2][i] = top + down;
    taps->at[3][i] = top + down + right;
    taps->wx[i] = strip.wx[b][i];
    taps->wy[i] = strip.wy[b][i];
  }
}

template <class S>
inline void taps_outside(const Strip<S>& strip, int b, int64_t height, int64_t width,
                         Taps<S>* taps) {
  for (int i = 0; i < S::kLanes; ++i) {
    const float x = strip.wx[b][i], y = strip.wy[b][i];
    const auto right = static_cast<float>(width), bottom = static_cast<float>(height);
    const bool near = x > -1.0f && x < right && y > -1.0f && y < bottom;
    // Far outside, all neighbours are; this one is as good as any.
    int64_t x0 = near ? static_cast<int64_t>(x + 1.0f) - 1 : -2;
    int64_t y0 = near ? static_cast<int64_t>(y + 1.0f) - 1 : -2;
    if (Scalar::all_inside(x, y, right - 1.0f, bottom - 1.0f)) {
      // As in a block that is inside.
      x0 = static_cast<int64_t>(x);
      y0 = static_cast<int64_t>(y);
      x0 = x0 > width - 2 && width > 1 ? width - 2 : x0;
      y0 = y0 > height - 2 && height > 1 ? height - 2 : y0;
    }
    for (int k = 0; k < 4; ++k) {
      const int64_t column = x0 + k % 2, row = y0 + k / 2;
      const bool inside = column >= 0 && column < width && row >= 0 && row < height;
      taps->at[k][i] = inside ? static_cast<int32_t>(row * width + column) : -1;
    }
    taps->wx[i] = near ? x - static_cast<float>(x0) : 0.0f;
    taps->wy[i] = near ? y - static_cast<float>(y0) : 0.0f;
  }
}

template <class S, class T, int C>
inline void sample_taps(const Taps<S>& taps, const Planes<T>& image, typename S::F* out) {
  const auto wx = S::load(taps.wx), wy = S::load(taps.wy);
  for (int c = 0; c < C; ++c) {
    const T* plane = image.data + c * image.plane;
    typename S::F corner[4];
    for (int k = 0; k < 4; ++k) {
      T values[S::kLanes];
      for (int i = 0; i < S::kLanes; ++i) {
        const int32_t at = taps.at[k][i];
        values[i] = at >= 0 ? plane[at] : T{};
      }
      corner[k] = S::load(values);
    }
    out[c] = S::lerp(S::lerp(corner[0], corner[1], wx), S::lerp(corner[2], corner[3], wx), wy);
  }
}

template <class S, class T, int C>
inline void sample_scattered(const Strip<S>& strip, const Planes<T>& image, int b,
                             typename S::F* out) {
  if constexpr (S::kLanes > 1 && sizeof(T) == sizeof(float)) {
    const auto width = S::splat(static_cast<int32_t>(image.width));
    const auto left = S::add(S::mul(S::load(strip.row[b]), width), S::load(strip.column[b]));
    const auto wx = S::load(strip.wx[b]), wy = S::load(strip.wy[b]);
    for (int c = 0; c < C; ++c) {
      const T* plane = image.data + strip.base[b] + c * image.plane;
      out[c] = S::lerp(S::gather_across(plane, left, wx),
                       S::gather_across(plane + image.width, left, wx), wy);
    }
  } else {
    Taps<S> taps;
    taps_inside(strip, b, image.height, image.width, &taps);
    sample_taps<S, T, C>(taps, image, out);
  }
}

template <class S, class T, int C>
inline void sample_outside(const Strip<S>& strip, const Planes<T>& image, int b,
                           typename S::F* out) {
  Taps<S> taps;
  taps_outside(strip, b, image.height, image.width, &taps);
  sample_taps<S, T, C>(taps, image, out);
}

// Calls sample(b, values) and then emit(b, values) for every block of a set.
template <class S, int C, class Sample, class Emit>
FASTVID_INLINE void for_blocks(uint64_t blocks, Sample sample, Emit emit) {
  for (; blocks != 0; blocks &= blocks - 1) {
    const int b = __builtin_ctzll(blocks);
    typename S::F values[C];
    sample(b, values);
    emit(b, values);
  }
}

// Calls emit(b, values) for every block of a strip, in any order, with C channels of it.
//
// A block's reads all come before emit's writes: planes are often a multiple of 4096 bytes apart,
// and a read waits for an earlier write whose address agrees in the low 12 bits.
template <class S, class T, int C, class Emit>
FASTVID_INLINE void sample_strip(const Strip<S>& strip, const Planes<T>& image, Emit emit) {
  using F = typename S::F;
  if constexpr (S::kLanes > 1) {
    for_blocks<S, C>(
        strip.kinds[kOneRow],
        [&](int b, F* out)
            FASTVID_INLINE_LAMBDA { sample_window<S, 1, T, C>(strip, image, b, out); },
        emit);
    for_blocks<S, C>(
        strip.kinds[kTwoRows],
        [&](int b, F* out)
            FASTVID_INLINE_LAMBDA { sample_window<S, 2, T, C>(strip, image, b, out); },
        emit);
    for_blocks<S, C>(
        strip.kinds[kThreeRows],
        [&](int b, F* out)
            FASTVID_INLINE_LAMBDA { sample_window<S, 3, T, C>(strip, image, b, out); },
        emit);
  }
  for_blocks<S, C>(
      strip.kinds[kScattered],
      [&](int b, F* out) { sample_scattered<S, T, C>(strip, image, b, out); }, emit);
  for_blocks<S, C>(
      strip.kinds[kOutside], [&](int b, F* out) { sample_outside<S, T, C>(strip, image, b, out); },
      emit);
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
