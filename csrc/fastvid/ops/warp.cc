#include "fastvid/ops/warp.h"

#include <string>

#include "fastvid/core/error.h"
#include "fastvid/core/flow.h"
#include "fastvid/core/isa.h"
#include "fastvid/cpu/warp.h"
#include "fastvid/cuda/warp.h"

namespace fastvid {
namespace {

constexpr const char* kOp = "warp";
// Rows of one task: enough work to outweigh handing it over.
constexpr int64_t kRows = 16;

// Height and width of the images.
struct Size {
  int64_t height, width;
};

Size size_of(const WarpArgs& args) {
  const Shape& shape = args.images[0].shape;
  return args.layout == PixelLayout::kChannelsLast ? Size{shape[1], shape[2]}
                                                   : Size{shape[2], shape[3]};
}

int64_t channels_of(const WarpArgs& args, int i) {
  return args.images[i].dim(args.layout == PixelLayout::kChannelsLast ? 3 : 1);
}

int scale_of(const WarpArgs& args) {
  const auto [height, width] = size_of(args);
  return flow_scale(kOp, args.flow, args.images[0].dim(0), 2, height, width);
}

void require_image(const WarpArgs& args, int i) {
  const bool last = args.layout == PixelLayout::kChannelsLast;
  const Tensor &image = args.images[i], &first = args.images[0];
  require_dtype(kOp, image, {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kUint8});
  require_rank(kOp, image, last ? "(N, H, W, C)" : "(N, C, H, W)");
  const auto [height, width] = size_of(args);
  if (i == 0) {
    require_addressable(kOp, image, height, width);
    return;
  }
  const int64_t channels = channels_of(args, i);
  require_shape(kOp, image,
                last ? Shape{first.dim(0), height, width, channels}
                     : Shape{first.dim(0), channels, height, width});
}

void require_outputs(const WarpArgs& args, const Tensor* outs) {
  for (int i = 0; i < args.count; ++i) {
    require_dtype(kOp, outs[i], args.images[i].dtype);
    require_shape(kOp, outs[i], args.images[i].shape);
    require_apart(kOp, outs[i], {&args.flow});
    for (int k = 0; k < args.count; ++k) {
      require_apart(kOp, outs[i], {&args.images[k]});
      if (k != i) require_apart(kOp, outs[i], {&outs[k]});
    }
  }
}

bool all_on_cuda(const WarpArgs& args, const Tensor* outs) {
  bool cuda = false;
  for (int i = 0; i < args.count; ++i) {
    cuda = on_cuda(kOp, {&args.images[0], &args.images[i], &args.flow, &outs[i]});
  }
  return cuda;
}

// The n-th images of the batch.
cpu::Warp kernel_of(const WarpArgs& args, const Tensor* outs, int64_t n) {
  const auto [height, width] = size_of(args);
  const int64_t cells = args.flow.dim(2) * args.flow.dim(3);
  cpu::Warp kernel{.sources = {},
                   .count = 0,
                   .flow = args.flow.as<const float>() + 2 * n * cells,
                   .height = height,
                   .width = width,
                   .flow_height = args.flow.dim(2),
                   .flow_width = args.flow.dim(3),
                   .scale = scale_of(args),
                   .zeros = args.padding == Padding::kZeros,
                   .channels_last = args.layout == PixelLayout::kChannelsLast};
  for (int i = 0; i < args.count; ++i) {
    const Tensor& image = args.images[i];
    const int64_t channels = channels_of(args, i);
    if (channels == 0) continue;
    const auto bytes = channels * height * width * static_cast<int64_t>(dtype_size(image.dtype));
    // Where the channels are last, a pixel must be whole cache lines.
    const int64_t row = kernel.channels_last ? channels : width;
    kernel.sources[kernel.count++] = {
        .image = image.as<const char>() + n * bytes,
        .out = outs[i].as<char>() + n * bytes,
        .dtype = image.dtype,
        .channels = channels,
        .stream = image.dtype == DType::kFloat32 && may_stream(outs[i], row)};
  }
  return kernel;
}

}  // namespace

Tensor warp_output(const WarpArgs& args, int i) {
  if (args.count < 1 || args.count > WarpArgs::kMaxImages) {
    throw InputError("warp: image must be from 1 to " + std::to_string(WarpArgs::kMaxImages) +
                     " images, got " + std::to_string(args.count));
  }
  for (int k = 0; k < args.count; ++k) require_image(args, k);
  require_dtype(kOp, args.flow, DType::kFloat32);
  require_rank(kOp, args.flow, "(N, 2, h, w)");
  scale_of(args);
  return {.name = "out", .dtype = args.images[i].dtype, .shape = args.images[i].shape};
}

void warp(const WarpArgs& args, const Tensor* outs, const Executor& executor) {
  (void)warp_output(args);
  require_outputs(args, outs);
  if (all_on_cuda(args, outs)) {
    cuda::warp(args, scale_of(args), outs, executor.cuda_stream());
    return;
  }
  const auto warp_rows = FASTVID_BY_ISA(warp_rows);
  const auto [height, width] = size_of(args);
  if (height == 0 || width == 0) return;
  for (int64_t n = 0; n < args.images[0].dim(0); ++n) {
    const cpu::Warp kernel = kernel_of(args, outs, n);
    for_rows(executor, height, kRows,
             [&](int64_t begin, int64_t end) { warp_rows(kernel, begin, end); });
  }
}

}  // namespace fastvid
