#include "fastvid/ops/downscale.h"

#include "fastvid/core/error.h"
#include "fastvid/core/isa.h"
#include "fastvid/cpu/downscale.h"
#include "fastvid/cuda/downscale.h"

namespace fastvid {
namespace {

// Pixels of x in one task: enough work to outweigh handing it over.
constexpr int64_t kPixels = 1 << 16;

}  // namespace

Tensor downscale_output(const Tensor& x, int64_t factor) {
  constexpr const char* op = "downscale";
  require_dtype(op, x, DType::kFloat32);
  require_rank(op, x, "(N, C, H, W)");
  if (factor != 2 && factor != 4 && factor != 8) {
    throw InputError("downscale: factor must be 2, 4 or 8, got " + std::to_string(factor));
  }
  if (x.dim(2) % factor != 0 || x.dim(3) % factor != 0) {
    throw InputError("downscale: x must have a height and a width that are multiples of " +
                         std::to_string(factor) + ", got shape " + x.shape.text(),
                     "pad x, for instance with numpy.pad(x, ..., mode='edge')");
  }
  return {.name = "out",
          .dtype = DType::kFloat32,
          .shape = {x.dim(0), x.dim(1), x.dim(2) / factor, x.dim(3) / factor}};
}

void downscale(const Tensor& x, const Tensor& out, int64_t factor, const Executor& executor) {
  constexpr const char* op = "downscale";
  const Tensor expected = downscale_output(x, factor);
  require_dtype(op, out, expected.dtype);
  require_shape(op, out, expected.shape);
  require_apart(op, out, {&x});
  if (on_cuda(op, {&x, &out})) {
    cuda::downscale(x, out, factor, executor.cuda_stream());
    return;
  }
  const int64_t width = out.dim(3);
  // Planes lie one after another, so that their rows can be dealt out as one tall image's.
  const int64_t rows = out.dim(0) * out.dim(1) * out.dim(2);
  if (width == 0) return;
  const int64_t work = width * factor * factor;
  const auto kernel = FASTVID_BY_ISA(downscale);
  for_rows(executor, rows, work < kPixels ? kPixels / work : 1, [&](int64_t begin, int64_t end) {
    kernel(x.as<const float>() + begin * work, out.as<float>() + begin * width, end - begin, width,
           factor);
  });
}

}  // namespace fastvid
