#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/sampling.cuh"
#include "fastvid/cuda/warp.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 128;

struct Image {
  const float* data;
  int64_t channels, height, width;
};

// A pixel where a neighbour outside the image counts as 0; the point is not inside it.
__device__ float sample_outside(const float* __restrict__ s, float x, float y, const Image& image) {
  const int64_t height = image.height, width = image.width;
  if (!(x > -1.0f && x < static_cast<float>(width) && y > -1.0f &&
        y < static_cast<float>(height))) {
    return 0.0f;
  }
  const int64_t x0 = static_cast<int64_t>(x + 1.0f) - 1, y0 = static_cast<int64_t>(y + 1.0f) - 1;
  const float wx = x - static_cast<float>(x0), wy = y - static_cast<float>(y0);
  const auto at = [&](int64_t j, int64_t i) {
    return j >= 0 && j < height && i >= 0 && i < width ? __ldg(s + j * width + i) : 0.0f;
  };
  const float a = at(y0, x0), b = at(y0, x0 + 1), c = at(y0 + 1, x0), d = at(y0 + 1, x0 + 1);
  const float above = a + wx * (b - a), below = c + wx * (d - c);
  return above + wy * (below - above);
}

// One thread per pixel of one image; the channels share its coordinates.
__global__ void __launch_bounds__(kThreads)
    warp_kernel(Image image, Field flow, bool zeros, float* __restrict__ out) {
  const int64_t plane = image.height * image.width;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= plane) return;
  const int64_t y = i / image.width, x = i - y * image.width;
  const float px = displaced(x, flow.read(0, y, x)), py = displaced(y, flow.read(1, y, x));
  const float ex = to_edge(px, image.width), ey = to_edge(py, image.height);
  const bool outside = zeros && (ex != px || ey != py);
  const Neighbours at(ex, ey, image.height, image.width);
  for (int64_t c = 0; c < image.channels; ++c) {
    const float* source = image.data + c * plane;
    out[c * plane + i] = outside ? sample_outside(source, px, py, image) : at.sample(source);
  }
}

}  // namespace

void warp(const WarpArgs& args, int scale, const Tensor& out, void* stream) {
  const DeviceGuard guard("warp", {&args.image, &args.flow, &out});
  if (out.shape.elements() == 0) return;
  Image image{args.image.as<const float>(), args.image.dim(1), args.image.dim(2),
              args.image.dim(3)};
  Field flow{args.flow.as<const float>(), args.flow.dim(2), args.flow.dim(3), scale};
  auto* target = out.as<float>();
  const int64_t plane = image.height * image.width;
  const auto blocks = static_cast<unsigned>((plane + kThreads - 1) / kThreads);
  for (int64_t n = 0; n < args.image.dim(0); ++n) {
    warp_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        image, flow, args.padding == Padding::kZeros, target);
    image.data += image.channels * plane;
    flow.data += 2 * flow.height * flow.width;
    target += image.channels * plane;
  }
  check_launch("warp");
}

}  // namespace fastvid::cuda
