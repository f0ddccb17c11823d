// What the kernels of ops/linear.h are told.
#pragma once

#include <cstdint>

namespace fastvid {

// out[i, n] = bias[n] + sum over k of x[i, k] * weight[n, k], in tiles of kRows rows and a panel of
// kPanel columns. Tiles are counted row blocks first: tile t is panel t % panels() of block
// t / panels().
struct Linear {
  static constexpr int64_t kPanel = 64;
  static constexpr int64_t kBlock = 768;  // rows of a tile: what packing a panel is shared by

  const void* x;  // rows of `stride` elements: float32, or pairs of bfloat16 where those are made
  int64_t stride;
  const void* weight;  // (columns, depth)
  const float* bias;   // or null
  float* out;
  int64_t rows, columns, depth;

  int64_t panels() const { return (columns + kPanel - 1) / kPanel; }
  int64_t blocks() const { return (rows + kBlock - 1) / kBlock; }
  int64_t tiles() const { return panels() * blocks(); }
};

}  // namespace fastvid
