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
  alignas(64) int32_t at[4][S::kLanes];
  alignas(64) float wx[S::kLanes], wy[S::kLanes];
};

// Written without a branch, so that the compiler makes vectors of it.
template <class S>
inline void taps_outside(const Strip<S>& strip, int b, int64_t image_height, int64_t image_width,
                         Taps<S>* taps) {
  const auto height = static_cast<int32_t>(image_height);
  const auto width = static_cast<int32_t>(image_width);
  const auto right = static_cast<float>(width), bottom = static_cast<float>(height);
  for (int i = 0; i < S::kLanes; ++i) {
    float x = strip.wx[b][i], y = strip.wy[b][i];
    const bool near = (x > -1.0f) & (x < right) & (y > -1.0f) & (y < bottom);
    // Far outside, all neighbours are; this point is as good as any.
    x = near ? x : -2.0f;
    y = near ? y : -2.0f;
    const bool inside = (x >= 0.0f) & (x <= right - 1.0f) & (y >= 0.0f) & (y <= bottom - 1.0f);
    // Inside as in a block that is: the last column and row are neighbours of those before.
    const auto column = static_cast<int32_t>(x), row = static_cast<int32_t>(y);
    const int32_t last_column = width > 1 ? width - 2 : 0, last_row = height > 1 ? height - 2 : 0;
    const int32_t x0 =
        inside ? (column < last_column ? column : last_column) : static_cast<int32_t>(x + 1.0f) - 1;
    const int32_t y0 =
        inside ? (row < last_row ? row : last_row) : static_cast<int32_t>(y + 1.0f) - 1;
    const bool left_in = (x0 >= 0) & (x0 < width), right_in = (x0 >= -1) & (x0 + 1 < width);
    const bool above_in = (y0 >= 0) & (y0 < height), below_in = (y0 >= -1) & (y0 + 1 < height);
    const int32_t top = y0 * width + x0;
    taps->at[0][i] = near & above_in & left_in ? top : -1;
    taps->at[1][i] = near & above_in & right_in ? top + 1 : -1;
    taps->at[2][i] = near & below_in & left_in ? top + width : -1;
    taps->at[3][i] = near & below_in & right_in ? top + width + 1 : -1;
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
      if constexpr (S::kLanes > 1 && sizeof(T) == sizeof(float)) {
        corner[k] = S::gather(plane, S::load(taps.at[k]));
      } else {
        T values[S::kLanes];
        for (int i = 0; i < S::kLanes; ++i) {
          const int32_t at = taps.at[k][i];
          values[i] = at >= 0 ? plane[at] : T{};
        }
        corner[k] = S::load(values);
      }
    }
    out[c] = S::lerp(S::lerp(corner[0], corner[1], wx), S::lerp(corner[2], corner[3], wx), wy);
  }
}

// Blocks of one pixel read nothing else.
template <class T, int C>
FASTVID_INLINE void sample_pixel(const Strip<Scalar>& strip, const Planes<T>& image, int b,
                                 float* out) {
  const int64_t right = image.width > 1 ? 1 : 0, down = image.height > 1 ? image.width : 0;
  const float wx = strip.wx[b][0], wy = strip.wy[b][0];
  const T* q = image.data + strip.row[b][0] * image.width + strip.column[b][0];
  for (int c = 0; c < C; ++c, q += image.plane) {
    const float a = Scalar::load(q), c1 = Scalar::load(q + right);
    const float d = Scalar::load(q + down), e = Scalar::load(q + down + right);
    out[c] = Scalar::lerp(Scalar::lerp(a, c1, wx), Scalar::lerp(d, e, wx), wy);
  }
}

template <class S, class T, int C>
inline void sample_scattered(const Strip<S>& strip, const Planes<T>& image, int b,
                             typename S::F* out) {
  if constexpr (S::kLanes == 1) {
    sample_pixel<T, C>(strip, image, b, out);
  } else {
    const int64_t base = strip.base[b];
    const auto width = S::splat(static_cast<int32_t>(image.width));
    const auto left = S::add(S::mul(S::load(strip.row[b]), width), S::load(strip.column[b]));
    const auto wx = S::load(strip.wx[b]), wy = S::load(strip.wy[b]);
    for (int c = 0; c < C; ++c) {
      const T* plane = image.data + base + c * image.plane;
      out[c] = S::lerp(
          S::gather_across(plane, left, image.plane - base, wx),
          S::gather_across(plane + image.width, left, image.plane - base - image.width, wx), wy);
    }
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
