#include "fastvid/ops/warp.h"

#include "fastvid/core/flow.h"
#include "fastvid/core/isa.h"
#include "fastvid/cpu/warp.h"
#include "fastvid/cuda/warp.h"

namespace fastvid {
namespace {

constexpr const char* kOp = "warp";
// Rows of one task: enough work to outweigh handing it over.
constexpr int64_t kRows = 16;

int scale_of(const WarpArgs& args) {
  const Tensor& image = args.image;
  return flow_scale(kOp, args.flow, image.dim(0), 2, image.dim(2), image.dim(3));
}

}  // namespace

Tensor warp_output(const WarpArgs& args) {
  require_dtype(kOp, args.image, DType::kFloat32);
  require_dtype(kOp, args.flow, DType::kFloat32);
  require_rank(kOp, args.image, "(N, C, H, W)");
  require_rank(kOp, args.flow, "(N, 2, h, w)");
  require_addressable(kOp, args.image, args.image.dim(2), args.image.dim(3));
  scale_of(args);
  return {.name = "out", .dtype = DType::kFloat32, .shape = args.image.shape};
}

void warp(const WarpArgs& args, const Tensor& out, const Executor& executor) {
  const Tensor expected = warp_output(args);
  const Tensor &image = args.image, &flow = args.flow;
  require_dtype(kOp, out, expected.dtype);
  require_shape(kOp, out, expected.shape);
  require_apart(kOp, out, {&image, &flow});
  const int scale = scale_of(args);
  if (on_cuda(kOp, {&image, &flow, &out})) {
    cuda::warp(args, scale, out, executor.cuda_stream());
    return;
  }
  if (out.shape.elements() == 0) return;
  cpu::Warp kernel{.image = image.as<const float>(),
                   .flow = flow.as<const float>(),
                   .out = out.as<float>(),
                   .channels = image.dim(1),
                   .height = image.dim(2),
                   .width = image.dim(3),
                   .flow_height = flow.dim(2),
                   .flow_width = flow.dim(3),
                   .scale = scale,
                   .zeros = args.padding == Padding::kZeros,
                   .stream = may_stream(out, image.dim(3))};
  const auto warp_rows = FASTVID_BY_ISA(warp_rows);
  const int64_t size = kernel.channels * kernel.height * kernel.width;
  for (int64_t n = 0; n < image.dim(0); ++n) {
    for_rows(executor, kernel.height, kRows,
             [&](int64_t begin, int64_t end) { warp_rows(kernel, begin, end); });
    kernel.image += size;
    kernel.out += size;
    kernel.flow += 2 * kernel.flow_height * kernel.flow_width;
  }
}

}  // namespace fastvid
