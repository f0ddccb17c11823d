// Device functions shared by the warps. The arithmetic is that of cpu/lanes_scalar.h and
// cpu/flow_rows.h, operation by operation, so that the results are the same; compiled without
// contraction to fma.
#pragma once

#include <cstdint>

#include "fastvid/cuda/half.cuh"

namespace fastvid::cuda {

// A field stored at 1/scale of the image, read at full resolution.
struct Field {
  const float* data;  // (channels, height, width)
  int64_t height, width;
  int scale;

  struct Axis {
    int low, high;
    float weight;
  };

  __device__ Axis axis(int64_t place, int64_t count) const {
    // Sides are at most 2^24.
    const int at = static_cast<int>(place), last = static_cast<int>(count) - 1;
    const int cell = at / scale;
    const float offset = (static_cast<float>(at - cell * scale) + 0.5f) / static_cast<float>(scale);
    const int low = offset < 0.5f ? cell - 1 : cell;
    const auto inside = [last](int i) { return i < 0 ? 0 : i > last ? last : i; };
    return {inside(low), inside(low + 1), offset < 0.5f ? offset + 0.5f : offset - 0.5f};
  }

  __device__ float read(int64_t channel, int64_t y, int64_t x) const {
    const float* plane = data + channel * height * width;
    if (scale == 1) return __ldg(plane + y * width + x);
    const Axis row = axis(y, height), column = axis(x, width);
    const float *above = plane + row.low * width, *below = plane + row.high * width;
    const float a = __ldg(above + column.low), b = __ldg(above + column.high);
    const float left = a + row.weight * (__ldg(below + column.low) - a);
    const float right = b + row.weight * (__ldg(below + column.high) - b);
    return left + column.weight * (right - left);
  }
};

// Coordinate of pixel `at` displaced by `flow`; a NaN displaces by 0.
__device__ inline float displaced(int64_t at, float flow) {
  return static_cast<float>(at) + (flow == flow ? flow : 0.0f);
}

__device__ inline float to_edge(float at, int64_t size) {
  return fminf(fmaxf(at, 0.0f), static_cast<float>(size - 1));
}

// The four neighbours of a point inside the image, and their weights.
struct Neighbours {
  int64_t top, right, down;
  float wx, wy;

  __device__ Neighbours(float x, float y, int64_t height, int64_t width) {
    int64_t x0 = static_cast<int64_t>(x), y0 = static_cast<int64_t>(y);
    x0 = x0 > width - 2 ? width - 2 : x0;
    y0 = y0 > height - 2 ? height - 2 : y0;
    x0 = x0 < 0 ? 0 : x0;
    y0 = y0 < 0 ? 0 : y0;
    top = y0 * width + x0;
    right = width > 1 ? 1 : 0;
    down = height > 1 ? width : 0;
    wx = x - static_cast<float>(x0);
    wy = y - static_cast<float>(y0);
  }

  template <class T>
  __device__ float sample(const T* __restrict__ plane) const {
    const T* q = plane + top;
    const float a = to_float(q[0]), c = to_float(q[down]);
    const float above = a + wx * (to_float(q[right]) - a);
    const float below = c + wx * (to_float(q[down + right]) - c);
    return above + wy * (below - above);
  }
};

}  // namespace fastvid::cuda
