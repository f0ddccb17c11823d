#include "fastvid/ops/warp.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

// Attributes: `zeros` is 1 for zero padding instead of the border, `channels_last` 1 for an image
// (N, H, W, C).
const Op kWarp{{.name = "Warp",
                .inputs = {{"image", kAnyDType}, {"flow", DType::kFloat32}},
                .outputs = {{kAnyDType}},
                .attributes = {{"zeros", 0}, {"channels_last", 0}},
                .compute = [](const Call& call) {
                  WarpArgs args{
                      .flow = call.input(1),
                      .padding = call.integer("zeros") != 0 ? Padding::kZeros : Padding::kBorder,
                      .layout = call.integer("channels_last") != 0 ? PixelLayout::kChannelsLast
                                                                   : PixelLayout::kChannelsFirst};
                  args.images[0] = call.input(0);
                  const Tensor out = call.output(warp_output(args));
                  warp(args, &out, call.executor());
                }}};

}  // namespace
}  // namespace fastvid::onnxruntime
