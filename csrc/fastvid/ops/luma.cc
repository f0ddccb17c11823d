#include "fastvid/ops/luma.h"

#include <algorithm>
#include <cmath>

#include "fastvid/core/error.h"
#include "fastvid/core/isa.h"
#include "fastvid/cpu/luma.h"
#include "fastvid/cuda/luma.h"

namespace fastvid {
namespace {

// About this many pixels make one task: small enough to share out evenly, large enough to pay.
constexpr int64_t kTaskPixels = 32768;
constexpr int64_t kMaxScale = 4;

RgbToLuma make_rgb_to_luma(const Tensor& frames, const LumaTensors& out, int64_t n) {
  const int64_t plane = frames.dim(1) * frames.dim(2);
  float* chroma = out.chroma.as<float>() + 2 * n * plane;
  RgbToLuma op{};
  op.luma = out.luma.as<float>() + n * plane;
  op.cb = chroma;
  op.cr = chroma + plane;
  if (frames.dtype == DType::kUint8) {
    op.rgb = frames.as<const uint8_t>() + 3 * n * plane;
  } else {
    op.wide_rgb = frames.as<const uint16_t>() + 3 * n * plane;
    op.weights = luma_weights(65535.0);
  }
  return op;
}

LumaToRgb make_luma_to_rgb(const LumaTensors& in, const Tensor& out, int64_t n) {
  const int64_t plane = in.chroma.dim(2) * in.chroma.dim(3),
                pixels = in.luma.dim(2) * in.luma.dim(3);
  const float* chroma = in.chroma.as<const float>() + 2 * n * plane;
  LumaToRgb op{};
  op.luma = in.luma.as<const float>() + n * pixels;
  op.cb = chroma;
  op.cr = chroma + plane;
  if (out.dtype == DType::kUint8) {
    op.rgb = out.as<uint8_t>() + 3 * n * pixels;
  } else {
    op.wide_rgb = out.as<uint16_t>() + 3 * n * pixels;
    op.weights = luma_weights(65535.0);
  }
  op.height = in.chroma.dim(2);
  op.width = in.chroma.dim(3);
  op.scale = static_cast<int>(in.luma.dim(2) / in.chroma.dim(2));
  for (int p = 0; p < op.scale; ++p) {
    op.step[p] = static_cast<float>(std::fabs((p + 0.5) / op.scale - 0.5));
  }
  return op;
}

}  // namespace

LumaTensors rgb_to_luma_output(const Tensor& frames) {
  constexpr const char* op = "rgb_to_luma";
  require_dtype(op, frames, {DType::kUint8, DType::kUint16});
  require_rank(op, frames, "(N, H, W, 3)");
  const int64_t n = frames.dim(0), height = frames.dim(1), width = frames.dim(2);
  require_shape(op, frames, {n, height, width, 3});
  return {{.name = "out luma", .dtype = DType::kFloat32, .shape = {n, 1, height, width}},
          {.name = "out chroma", .dtype = DType::kFloat32, .shape = {n, 2, height, width}}};
}

void rgb_to_luma(const Tensor& frames, const LumaTensors& out, const Executor& executor) {
  constexpr const char* op = "rgb_to_luma";
  const LumaTensors expected = rgb_to_luma_output(frames);
  require_dtype(op, out.luma, DType::kFloat32);
  require_dtype(op, out.chroma, DType::kFloat32);
  require_shape(op, out.luma, expected.luma.shape);
  require_shape(op, out.chroma, expected.chroma.shape);
  require_apart(op, out.luma, {&frames});
  require_apart(op, out.chroma, {&frames, &out.luma});
  if (on_cuda(op, {&frames, &out.luma, &out.chroma})) {
    cuda::rgb_to_luma(make_rgb_to_luma(frames, out, 0), frames, out, executor.cuda_stream());
    return;
  }
  const auto kernel = FASTVID_BY_ISA(rgb_to_luma);
  for (int64_t n = 0; n < frames.dim(0); ++n) {
    const RgbToLuma work = make_rgb_to_luma(frames, out, n);
    for_rows(executor, frames.dim(1) * frames.dim(2), kTaskPixels,
             [&](int64_t begin, int64_t end) { kernel(work, begin, end); });
  }
}

Tensor luma_to_rgb_output(const LumaTensors& in, DType dtype) {
  constexpr const char* op = "luma_to_rgb";
  require_dtype(op, in.luma, DType::kFloat32);
  require_dtype(op, in.chroma, DType::kFloat32);
  require_rank(op, in.luma, "(N, 1, sH, sW)");
  require_rank(op, in.chroma, "(N, 2, H, W)");
  if (in.chroma.dim(2) * in.chroma.dim(3) == 0) require_not_empty(op, in.chroma);
  const int64_t n = in.luma.dim(0), height = in.luma.dim(2), width = in.luma.dim(3);
  require_shape(op, in.luma, {n, 1, height, width});
  require_shape(op, in.chroma, {n, 2, in.chroma.dim(2), in.chroma.dim(3)});
  const int64_t scale = height / in.chroma.dim(2);
  if (scale < 1 || scale > kMaxScale || height != scale * in.chroma.dim(2) ||
      width != scale * in.chroma.dim(3)) {
    throw InputError("luma_to_rgb: luma must be 1, 2, 3 or 4 times as high and wide as chroma " +
                     in.chroma.shape.text() + ", got " + in.luma.shape.text());
  }
  return {.name = "out", .dtype = dtype, .shape = {n, height, width, 3}};
}

void luma_to_rgb(const LumaTensors& in, const Tensor& out, const Executor& executor) {
  constexpr const char* op = "luma_to_rgb";
  require_dtype(op, out, {DType::kUint8, DType::kUint16});
  const Tensor expected = luma_to_rgb_output(in, out.dtype);
  require_shape(op, out, expected.shape);
  require_apart(op, out, {&in.luma, &in.chroma});
  if (on_cuda(op, {&in.luma, &in.chroma, &out})) {
    cuda::luma_to_rgb(make_luma_to_rgb(in, out, 0), in, out, executor.cuda_stream());
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kTaskPixels / in.luma.dim(3));
  const auto kernel = FASTVID_BY_ISA(luma_rows_to_rgb);
  for (int64_t n = 0; n < in.luma.dim(0); ++n) {
    const LumaToRgb work = make_luma_to_rgb(in, out, n);
    for_rows(executor, in.luma.dim(2), grain,
             [&](int64_t begin, int64_t end) { kernel(work, begin, end); });
  }
}

}  // namespace fastvid
