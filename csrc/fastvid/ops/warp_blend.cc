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

}  // namespace

Tensor warp_blend_output(const WarpBlendArgs& args, DType dtype) {
  const Tensor &image0 = args.image0, &flow = args.flow;
  for (const Tensor* tensor : {&args.image0, &args.image1, &args.flow, &args.mask}) {
    require_dtype(kOp, *tensor, DType::kFloat32);
  }
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
    require_dtype(kOp, args.residual, DType::kFloat32);
    require_shape(kOp, args.residual, image0.shape);
  }
  if (dtype == DType::kFloat32) return {.name = "out", .dtype = dtype, .shape = image0.shape};
  return {.name = "out",
          .dtype = DType::kUint8,
          .shape = {image0.dim(0), image0.dim(2), image0.dim(3), 3}};
}

void warp_blend(const WarpBlendArgs& args, const Tensor& out, const Executor& executor) {
  require_dtype(kOp, out, {DType::kFloat32, DType::kUint8});
  require_shape(kOp, out, warp_blend_output(args, out.dtype).shape);
  require_apart(kOp, out, {&args.image0, &args.image1, &args.flow, &args.mask, &args.residual});
  const int scale = scale_of(args);
  if (on_cuda(kOp, {&args.image0, &args.image1, &args.flow, &args.mask, &args.residual, &out})) {
    cuda::warp_blend(args, scale, out, executor.cuda_stream());
    return;
  }
  if (out.shape.elements() == 0) return;
  const bool bytes = out.dtype == DType::kUint8;
  const int64_t height = args.image0.dim(2), width = args.image0.dim(3);
  cpu::WarpBlend kernel{.image0 = args.image0.as<const float>(),
                        .image1 = args.image1.as<const float>(),
                        .flow = args.flow.as<const float>(),
                        .mask = args.mask.as<const float>(),
                        .residual = args.residual.as<const float>(),
                        .planes = bytes ? nullptr : out.as<float>(),
                        .rgb = bytes ? out.as<uint8_t>() : nullptr,
                        .height = height,
                        .width = width,
                        .flow_height = args.flow.dim(2),
                        .flow_width = args.flow.dim(3),
                        .scale = scale,
                        .stream = !bytes && may_stream(out, width),
                        .large = 6 * height * width * int64_t{sizeof(float)} >= kLargeBytes};
  const auto warp_blend_rows = FASTVID_BY_ISA(warp_blend_rows);
  const int64_t size = 3 * height * width, cells = kernel.flow_height * kernel.flow_width;
  for (int64_t n = 0; n < args.image0.dim(0); ++n) {
    for_rows(executor, height, kRows,
             [&](int64_t begin, int64_t end) { warp_blend_rows(kernel, begin, end); });
    kernel.image0 += size;
    kernel.image1 += size;
    kernel.flow += 4 * cells;
    kernel.mask += cells;
    if (kernel.residual != nullptr) kernel.residual += size;
    if (bytes) {
      kernel.rgb += size;
    } else {
      kernel.planes += size;
    }
  }
}

}  // namespace fastvid
