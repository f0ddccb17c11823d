// The matrix product of ops/linear.h tile by tile: a panel of weights is packed a piece of its
// depth at a time, and every row of x passes over the piece while it is in the first cache. What
// differs between number formats is in `Math`.
#pragma once

#include "fastvid/core/linear.h"
#include "fastvid/cpu/floats.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

constexpr int64_t kRows = 6;     // that are multiplied at a time
constexpr int64_t kPiece = 128;  // of the depth: kPiece * kPanel words fill the first cache
constexpr int64_t kPanel = Linear::kPanel;

FASTVID_INLINE int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}
FASTVID_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// kHigh rows of `out`, `vectors` vectors wide, (+)= x * panel over `depth` words.
template <class Math, int kHigh>
FASTVID_INLINE void multiply_rows(const typename Math::Word* x, int64_t stride,
                                  const typename Math::Word* panel, int64_t depth,
                                  const float* start, float* out, int64_t out_stride,
                                  int64_t vectors) {
  int64_t j = 0;
  for (; j + Math::kVectors <= vectors; j += Math::kVectors) {
    Math::template multiply<kHigh, Math::kVectors>(x, stride, panel + j * kFloats, depth,
                                                   start == nullptr ? nullptr : start + j * kFloats,
                                                   out + j * kFloats, out_stride);
  }
  for (; j < vectors; ++j) {
    Math::template multiply<kHigh, 1>(x, stride, panel + j * kFloats, depth,
                                      start == nullptr ? nullptr : start + j * kFloats,
                                      out + j * kFloats, out_stride);
  }
}

// The same where the last columns of the panel are not there: through a tile of its own.
template <class Math, int kHigh>
FASTVID_INLINE void multiply_edge(const typename Math::Word* x, int64_t stride,
                                  const typename Math::Word* panel, int64_t depth,
                                  const float* start, float* out, int64_t out_stride,
                                  int64_t count) {
  alignas(64) float tile[kHigh * kPanel];
  const int64_t vectors = round_up(count, kFloats) / kFloats;
  for (int64_t i = 0; start == nullptr && i < kHigh; ++i) {
    for (int64_t j = 0; j < vectors * kFloats; j += kFloats) {
      store(tile + i * kPanel + j, load_first(out + i * out_stride + j, count - j));
    }
  }
  multiply_rows<Math, kHigh>(x, stride, panel, depth, start, tile, kPanel, vectors);
  for (int64_t i = 0; i < kHigh; ++i) {
    for (int64_t j = 0; j < vectors * kFloats; j += kFloats) {
      store_first(out + i * out_stride + j, load(tile + i * kPanel + j), count - j);
    }
  }
}

template <class Math, int kHigh>
FASTVID_INLINE void multiply_some(const typename Math::Word* x, int64_t stride,
                                  const typename Math::Word* panel, int64_t depth,
                                  const float* start, float* out, int64_t out_stride,
                                  int64_t count) {
  if (count == kPanel) {
    multiply_rows<Math, kHigh>(x, stride, panel, depth, start, out, out_stride, kPanel / kFloats);
  } else {
    multiply_edge<Math, kHigh>(x, stride, panel, depth, start, out, out_stride, count);
  }
}

// Tiles [begin, end).
template <class Math>
void multiply_tiles(const Linear& shared, int64_t begin, int64_t end) {
  using Word = typename Math::Word;
  const Linear a = shared;  // a copy nothing else can change, so that it stays in registers
  alignas(64) Word piece[kPiece * kPanel];
  alignas(64) float bias[kPanel];
  const int64_t depth = Math::words(a.depth), panels = a.panels();
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t column = tile % panels * kPanel, first = tile / panels * Linear::kBlock;
    const int64_t count = smaller(kPanel, a.columns - column);
    const int64_t last = smaller(first + Linear::kBlock, a.rows);
    for (int64_t j = 0; j < kPanel; j += kFloats) {
      store(bias + j, a.bias == nullptr || j >= count ? splat(0.0f)
                                                      : load_first(a.bias + column + j, count - j));
    }
    for (int64_t d = 0; d < depth; d += kPiece) {
      const int64_t deep = smaller(kPiece, depth - d);
      Math::pack(a, column, count, d, deep, piece);
      const float* start = d == 0 ? bias : nullptr;
      const Word* x = static_cast<const Word*>(a.x) + first * a.stride + d;
      float* out = a.out + first * a.columns + column;
      int64_t i = first;
      for (; i + kRows <= last; i += kRows, x += kRows * a.stride, out += kRows * a.columns) {
        multiply_some<Math, kRows>(x, a.stride, piece, deep, start, out, a.columns, count);
      }
      for (; i < last; ++i, x += a.stride, out += a.columns) {
        multiply_some<Math, 1>(x, a.stride, piece, deep, start, out, a.columns, count);
      }
    }
  }
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
