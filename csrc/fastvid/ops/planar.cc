#include "fastvid/ops/planar.h"

#include "fastvid/core/error.h"
#include "fastvid/core/isa.h"
#include "fastvid/cpu/planar.h"
#include "fastvid/cuda/planar.h"

namespace fastvid {
namespace {

// Rows of one task: enough work to outweigh handing it over.
constexpr int64_t kRows = 32;

}  // namespace

Tensor rgb_to_planar_output(const Tensor& frames) {
  constexpr const char* op = "rgb_to_planar";
  require_dtype(op, frames, {DType::kUint8, DType::kUint16});
  require_rank(op, frames, "(N, H, W, 3)");
  if (frames.dim(3) != 3) {
    throw InputError("rgb_to_planar: frames must have 3 channels last, got shape " +
                     frames.shape.text());
  }
  return {.name = "out",
          .dtype = DType::kFloat32,
          .shape = {frames.dim(0), 3, frames.dim(1), frames.dim(2)}};
}

void rgb_to_planar(const Tensor& frames, const Tensor& out, const Executor& executor) {
  constexpr const char* op = "rgb_to_planar";
  const Tensor expected = rgb_to_planar_output(frames);
  require_dtype(op, out, expected.dtype);
  require_shape(op, out, expected.shape);
  require_apart(op, out, {&frames});
  if (on_cuda(op, {&frames, &out})) {
    cuda::rgb_to_planar(frames, out, executor.cuda_stream());
    return;
  }
  const int64_t height = frames.dim(1), width = frames.dim(2), plane = height * width;
  const auto convert = [&](auto kernel, const auto* source) {
    for (int64_t n = 0; n < frames.dim(0); ++n, source += 3 * plane) {
      auto* target = out.as<float>() + n * 3 * plane;
      for_rows(executor, height, kRows, [&](int64_t begin, int64_t end) {
        kernel(source + begin * width * 3, target + begin * width, plane, (end - begin) * width);
      });
    }
  };
  if (frames.dtype == DType::kUint8) {
    convert(FASTVID_BY_ISA(rgb_to_planar), frames.as<const uint8_t>());
  } else {
    convert(FASTVID_BY_ISA(wide_rgb_to_planar), frames.as<const uint16_t>());
  }
}

Tensor planar_to_rgb_output(const Tensor& x, DType dtype) {
  constexpr const char* op = "planar_to_rgb";
  require_dtype(op, x, DType::kFloat32);
  require_rank(op, x, "(N, 3, H, W)");
  if (x.dim(1) != 3) {
    throw InputError("planar_to_rgb: x must have 3 channels second, got shape " + x.shape.text());
  }
  return {.name = "out", .dtype = dtype, .shape = {x.dim(0), x.dim(2), x.dim(3), 3}};
}

void planar_to_rgb(const Tensor& x, const Tensor& out, const Executor& executor) {
  constexpr const char* op = "planar_to_rgb";
  require_dtype(op, out, {DType::kUint8, DType::kUint16});
  const Tensor expected = planar_to_rgb_output(x, out.dtype);
  require_shape(op, out, expected.shape);
  require_apart(op, out, {&x});
  if (on_cuda(op, {&x, &out})) {
    cuda::planar_to_rgb(x, out, executor.cuda_stream());
    return;
  }
  const int64_t height = x.dim(2), width = x.dim(3), plane = height * width;
  const auto convert = [&](auto kernel, auto* target) {
    for (int64_t n = 0; n < x.dim(0); ++n, target += 3 * plane) {
      const auto* source = x.as<const float>() + n * 3 * plane;
      for_rows(executor, height, kRows, [&](int64_t begin, int64_t end) {
        kernel(source + begin * width, plane, target + begin * width * 3, (end - begin) * width);
      });
    }
  };
  if (out.dtype == DType::kUint8) {
    convert(FASTVID_BY_ISA(planar_to_rgb), out.as<uint8_t>());
  } else {
    convert(FASTVID_BY_ISA(planar_to_wide_rgb), out.as<uint16_t>());
  }
}

}  // namespace fastvid
