// An 8x8 patch spread over sixteen threads, four pixels each; sums come out in the order, and so in
// the bits, of the CPU kernels.
#pragma once

#include <cuda_runtime.h>

#include "fastvid/core/search.h"

namespace fastvid::cuda {

using namespace search;

constexpr int kPatchThreads = 16;
constexpr int kPerThread = kPatchSize * kPatchSize / kPatchThreads;

// Thread `lane` holds pixels (row 2k + lane / 8, column lane % 8), k in 0 to 3.
struct Lane {
  int column, row;
  unsigned mask;  // the sixteen threads of this patch within the warp

  __device__ Lane() {
    const unsigned lane = threadIdx.x % kPatchThreads;
    column = static_cast<int>(lane % kPatchSize);
    row = static_cast<int>(lane / kPatchSize);
    mask = 0xffffu << (threadIdx.x % warpSize / kPatchThreads * kPatchThreads);
  }

  // The sum over all threads, in every thread.
  __device__ float sum(float x) const {
    x += __shfl_xor_sync(mask, x, 8);
    x += __shfl_xor_sync(mask, x, 4);
    x += __shfl_xor_sync(mask, x, 2);
    return x + __shfl_xor_sync(mask, x, 1);
  }

  __device__ float sum(const float (&x)[kPerThread]) const {
    float total = x[0];
    for (int k = 1; k < kPerThread; ++k) total += x[k];
    return sum(total);
  }
};

// A place in a plane: the pixel up and left of it, and the weights of its neighbours.
struct Place {
  const float* pixel;
  float right, down;

  __device__ Place(const Plane& plane, float x, float y) {
    const float left = floorf(x), top = floorf(y);
    pixel = plane.data + static_cast<int64_t>(top) * plane.pitch + static_cast<int64_t>(left);
    right = x - left;
    down = y - top;
  }

  // The value at the place moved by (column, row).
  __device__ float sample(int64_t pitch, int column, int row) const {
    const float* p = pixel + row * pitch + column;
    const float upper = p[0] * (1.0f - right) + p[1] * right;
    const float lower = p[pitch] * (1.0f - right) + p[pitch + 1] * right;
    return upper * (1.0f - down) + lower * down;
  }
};

__device__ inline float keep_inside(float flow, float corner, int64_t size) {
  return fminf(fmaxf(flow, -(corner + kPatchSize)), static_cast<float>(size) - corner);
}

__device__ inline int64_t corner_of(int64_t index, int stride, int64_t size) {
  return min(index * stride, size - kPatchSize);
}

struct Sums {
  float sum, square, dx, dy;
  __device__ float cost() const { return fmaxf(square - sum * sum * (1.0f / 64), 0.0f); }
};

// A patch and the gradients, without their mean, that its descent needs.
struct Patch {
  Lane lane;
  float x, y;
  float value[kPerThread], dx[kPerThread], dy[kPerThread];
  float xx, xy, yy;                          // the Hessian
  float inverse_xx, inverse_xy, inverse_yy;  // of the damped one

  __device__ Patch(const Plane& plane, int64_t left, int64_t top)
      : x(static_cast<float>(left)), y(static_cast<float>(top)) {
    const float* p = plane.data + (top + lane.row) * plane.pitch + left + lane.column;
    for (int k = 0; k < kPerThread; ++k, p += 2 * plane.pitch) value[k] = *p;
  }

  __device__ void prepare(const Plane& plane) {
    const int64_t top = static_cast<int64_t>(y) + lane.row;
    const float* p = plane.data + top * plane.pitch + static_cast<int64_t>(x) + lane.column;
    for (int k = 0; k < kPerThread; ++k, p += 2 * plane.pitch) {
      dx[k] = (p[1] - p[-1]) * 0.5f;
      dy[k] = (p[plane.pitch] - p[-plane.pitch]) * 0.5f;
    }
    const float mean_x = lane.sum(dx) * (1.0f / 64), mean_y = lane.sum(dy) * (1.0f / 64);
    float products[3][kPerThread];
    for (int k = 0; k < kPerThread; ++k) {
      dx[k] -= mean_x;
      dy[k] -= mean_y;
      products[0][k] = dx[k] * dx[k];
      products[1][k] = dx[k] * dy[k];
      products[2][k] = dy[k] * dy[k];
    }
    xx = lane.sum(products[0]);
    xy = lane.sum(products[1]);
    yy = lane.sum(products[2]);
    const float a = xx + kDamping, c = yy + kDamping;
    const float determinant = a * c - xy * xy;
    const float scale = determinant > 1.0f ? 1.0f / determinant : 0.0f;
    inverse_xx = c * scale;
    inverse_xy = -(xy * scale);
    inverse_yy = a * scale;
  }

  // The cost of lying (flow_dx, flow_dy) further in `to`.
  __device__ float compare(const Plane& to, float flow_dx, float flow_dy) const {
    const Place at(to, x + flow_dx, y + flow_dy);
    float difference[kPerThread], square[kPerThread];
    for (int k = 0; k < kPerThread; ++k) {
      difference[k] = at.sample(to.pitch, lane.column, lane.row + 2 * k) - value[k];
      square[k] = difference[k] * difference[k];
    }
    return Sums{lane.sum(difference), lane.sum(square), 0, 0}.cost();
  }

  // The same, and the sums of the differences times the gradients.
  __device__ Sums measure(const Plane& to, float flow_dx, float flow_dy) const {
    const Place at(to, x + flow_dx, y + flow_dy);
    float difference[kPerThread], square[kPerThread], by_dx[kPerThread], by_dy[kPerThread];
    for (int k = 0; k < kPerThread; ++k) {
      difference[k] = at.sample(to.pitch, lane.column, lane.row + 2 * k) - value[k];
      square[k] = difference[k] * difference[k];
      by_dx[k] = difference[k] * dx[k];
      by_dy[k] = difference[k] * dy[k];
    }
    return {lane.sum(difference), lane.sum(square), lane.sum(by_dx), lane.sum(by_dy)};
  }
};

}  // namespace fastvid::cuda
