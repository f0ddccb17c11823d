#include "fastvid/ops/linear.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

// Attribute `bfloat16`: 1 for products of bfloat16. Graphs for CUDA have a product of the runtime's
// instead of this node.
const Op kLinear{{.name = "Linear",
                  .inputs = {{"x", kAnyDType},
                             {"weight", kAnyDType},
                             {.name = "bias", .dtype = DType::kFloat32, .optional = true}},
                  .outputs = {{.dtype = kAnyDType, .rank = kRankOfInput}},
                  .attributes = {{"bfloat16", 0}},
                  .compute =
                      [](const Call& call) {
                        const LinearArgs args{.x = call.input(0),
                                              .weight = call.input(1),
                                              .bias = call.input(2),
                                              .bfloat16 = call.integer("bfloat16") != 0};
                        linear(args, call.output(linear_output(args)), call.executor());
                      },
                  .cuda = false}};

}  // namespace
}  // namespace fastvid::onnxruntime
