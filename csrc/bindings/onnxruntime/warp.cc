#include "fastvid/ops/warp.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

// Attribute `zeros`: 1 for zero padding instead of the border.
const Op kWarp{{.name = "Warp",
                .inputs = {{"image", DType::kFloat32}, {"flow", DType::kFloat32}},
                .outputs = {{DType::kFloat32}},
                .attributes = {{"zeros", 0}},
                .compute = [](const Call& call) {
                  const WarpArgs args{
                      .image = call.input(0),
                      .flow = call.input(1),
                      .padding = call.attribute("zeros") != 0 ? Padding::kZeros : Padding::kBorder};
                  warp(args, call.output(warp_output(args)), call.executor());
                }}};

}  // namespace
}  // namespace fastvid::onnxruntime
