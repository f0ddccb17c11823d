// Forward warp of images by a flow in pixels: every pixel is dropped where its flow says.
#pragma once

#include <string>

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

enum class SplatMode { kSum, kAverage, kLinear, kSoftmax };

// The mode called sum, average, linear or softmax; throws InputError for another name.
SplatMode splat_mode(const std::string& name);

// With weight w and image value v of the pixel at (y, x), and (dx, dy) = flow[n, :, y, x], the four
// pixels around (y + dy, x + dx) are given w * b * v, b their bilinear share. Then
//   kSum      out = sum(b * v)
//   kAverage  out = sum(b * v) / sum(b)
//   kLinear   out = sum(w * b * v) / sum(w * b), w = metric
//   kSoftmax  the same with w = exp(metric): of several pixels that land on one, the one with the
//             larger metric covers the others
// (Niklaus and Liu, Softmax Splatting for Video Frame Interpolation, 2020).
//   image   float32, float16 or bfloat16 (N, C, H, W); sums are float32
//   flow    float32 (N, 2, H, W) in pixels, dx first
//   metric  float32 (N, 1, H, W) for kLinear and kSoftmax; absent for the others
//   out     as image; shares no memory with an input
// What lands outside the image is lost. A pixel whose flow or metric is not finite gives nothing. A
// pixel of out that nothing reaches is 0, also where the sum of weights is within 1e-30 of 0.
// kSoftmax takes weights 2^64 * exp(max(metric - peak, -80)), peak the largest finite metric of the
// image, which changes nothing as long as no metric is 80 below the peak and no image value beyond
// 1e18. An image value that is not finite makes what it reaches not finite.
//
// On the CPU the result is the same to the last bit on every instruction set and number of threads:
// each sum is taken in the order of the source's pixels. The thread that calls keeps scratch for
// the next call: about 2 MiB at most for each thread that worked (two rows of 32 bytes a pixel for
// every four channels up to 16 where those are more) and an eighth of a byte per pixel of the
// image.
//
// On CUDA float32 sums are atomic, so the last bits may vary between runs; with `deterministic`
// they are sums of integers, which don't: to 40 bits below the largest addend of the pixel at 720p,
// one less for every doubling of the number of pixels. There, a value that is not finite makes all
// channels of what it reaches NaN. The work takes softmax_splat_workspace() bytes of device memory,
// of `workspace` (uint8, aligned to 16 bytes) or, without it, of the device's memory pool in the
// order of the stream.
struct SoftmaxSplatArgs {
  Tensor image{}, flow{}, metric{}, workspace{};
  SplatMode mode = SplatMode::kSoftmax;
  bool deterministic = false;
};

// Checks the arguments and says what out must be (data is null).
Tensor softmax_splat_output(const SoftmaxSplatArgs& args);
// Bytes of device memory that a call with these arguments needs on CUDA, for any batch:
// 16 + 16 * H * W * ceil(channels / 4), channels being C, and one more unless kSum;
// deterministic 16 + H * W * (4 + 8 * channels).
int64_t softmax_splat_workspace(const SoftmaxSplatArgs& args);
void softmax_splat(const SoftmaxSplatArgs& args, const Tensor& out, const Executor& executor);

}  // namespace fastvid
