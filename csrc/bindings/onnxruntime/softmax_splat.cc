#include "fastvid/ops/softmax_splat.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

// Attributes: `mode` is sum, average, linear or softmax; `deterministic` 1 for equal bits in every
// run on CUDA. `metric` is left out for sum and average.
const Op kSoftmaxSplat{
    {.name = "SoftmaxSplat",
     .inputs = {{"image", kAnyDType},
                {"flow", DType::kFloat32},
                {.name = "metric", .dtype = DType::kFloat32, .optional = true}},
     .outputs = {{kAnyDType}},
     .attributes = {{"mode", "softmax"}, {"deterministic", 0}},
     .compute = [](const Call& call) {
       const SoftmaxSplatArgs args{.image = call.input(0),
                                   .flow = call.input(1),
                                   .metric = call.input(2),
                                   .mode = splat_mode(call.text("mode")),
                                   .deterministic = call.integer("deterministic") != 0};
       softmax_splat(args, call.output(softmax_splat_output(args)), call.executor());
     }}};

}  // namespace
}  // namespace fastvid::onnxruntime
