#include "fastvid/ops/warp_blend.h"

#include "fastvid/core/error.h"
#include "fastvid/core/flow.h"
#include "fastvid/core/isa.h"
#include "fastvid/cpu/warp_blend.h"
#include "fastvid/cuda/warp_blend.h"

namespace fastvid {
namespace {

constexpr const char* kOp = "warp_blend";
// Rows of one task: enough work to outweigh handing it over.
constexpr int64_t kRows = 16;

int scale_of(const WarpBlendArgs& args) {
  const Tensor& image = args.image0;
  return flow_scale(kOp, args.flow, image.dim(0), 4, image.dim(2), image.dim(3));
}

// The n-th pair of the batch.
cpu::WarpBlend kernel_of(const WarpBlendArgs& args, const Tensor& out, int64_t n) {
  const int64_t height = args.image0.dim(2), width = args.image0.dim(3);
  const int64_t cells = args.flow.dim(2) * args.flow.dim(3);
  const auto nth = [&](const Tensor& tensor) {
    const auto size = 3 * height * width * static_cast<int64_t>(dtype_size(tensor.dtype));
    return tensor.present() ? tensor.as<char>() + n * size : nullptr;
  };
  const bool bytes = out.dtype == DType::kUint8, words = out.dtype == DType::kUint16;
  return {.dtype = args.image0.dtype,
          .image0 = nth(args.image0),
          .image1 = nth(args.image1),
          .flow = args.flow.as<const float>() + 4 * n * cells,
          .mask = args.mask.as<const float>() + n * cells,
          .residual = nth(args.residual),
          .planes = bytes || words ? nullptr : nth(out),
          .rgb = bytes ? reinterpret_cast<uint8_t*>(nth(out)) : nullptr,
          .wide_rgb = words ? reinterpret_cast<uint16_t*>(nth(out)) : nullptr,
          .height = height,
          .width = width,
          .flow_height = args.flow.dim(2),
          .flow_width = args.flow.dim(3),
          .scale = scale_of(args),
          .stream = out.dtype == DType::kFloat32 && may_stream(out, width)};
}

}  // namespace

Tensor warp_blend_output(const WarpBlendArgs& args, DType dtype) {
  const Tensor &image0 = args.image0, &flow = args.flow;
  require_dtype(kOp, image0, {DType::kFloat32, DType::kFloat16, DType::kBFloat16});
  require_dtype(kOp, args.image1, image0.dtype);
  require_dtype(kOp, flow, DType::kFloat32);
  require_dtype(kOp, args.mask, DType::kFloat32);
  require_rank(kOp, image0, "(N, 3, H, W)");
  require_rank(kOp, flow, "(N, 4, h, w)");
  if (image0.dim(1) != 3) {
    throw InputError("warp_blend: image0 must have 3 channels second, got shape " +
                     image0.shape.text());
  }
  require_addressable(kOp, image0, image0.dim(2), image0.dim(3));
  require_shape(kOp, args.image1, image0.shape);
  scale_of(args);
  require_shape(kOp, args.mask, {flow.dim(0), 1, flow.dim(2), flow.dim(3)});
  if (args.residual.present()) {
    require_dtype(kOp, args.residual, image0.dtype);
    require_shape(kOp, args.residual, image0.shape);
  }
  if (dtype != DType::kUint8 && dtype != DType::kUint16) {
    return {.name = "out", .dtype = image0.dtype, .shape = image0.shape};
  }
  return {.name = "out", .dtype = dtype, .shape = {image0.dim(0), image0.dim(2), image0.dim(3), 3}};
}

void warp_blend(const WarpBlendArgs& args, const Tensor& out, const Executor& executor) {
  const Tensor expected = warp_blend_output(args, out.dtype);
  require_dtype(kOp, out, {expected.dtype, DType::kUint8, DType::kUint16});
  require_shape(kOp, out, expected.shape);
  require_apart(kOp, out, {&args.image0, &args.image1, &args.flow, &args.mask, &args.residual});
  const int scale = scale_of(args);
  if (on_cuda(kOp, {&args.image0, &args.image1, &args.flow, &args.mask, &args.residual, &out})) {
    cuda::warp_blend(args, scale, out, executor.cuda_stream());
    return;
  }
  if (out.shape.elements() == 0) return;
  const auto warp_blend_rows = FASTVID_BY_ISA(warp_blend_rows);
  for (int64_t n = 0; n < args.image0.dim(0); ++n) {
    const cpu::WarpBlend kernel = kernel_of(args, out, n);
    for_rows(executor, kernel.height, kRows,
             [&](int64_t begin, int64_t end) { warp_blend_rows(kernel, begin, end); });
  }
}

}  // namespace fastvid
