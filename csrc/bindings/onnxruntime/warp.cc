#include "fastvid/ops/warp.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

// Attribute `zeros`: 1 for zero padding instead of the border.
const Op kWarp{{.name = "Warp",
                .inputs = {{"image", kAnyDType}, {"flow", DType::kFloat32}},
                .outputs = {{kAnyDType}},
                .attributes = {{"zeros", 0}},
                .compute = [](const Call& call) {
                  const WarpArgs args{
                      .image = call.input(0),
                      .flow = call.input(1),
                      .padding = call.integer("zeros") != 0 ? Padding::kZeros : Padding::kBorder};
                  warp(args, call.output(warp_output(args)), call.executor());
                }}};

}  // namespace
}  // namespace fastvid::onnxruntime
