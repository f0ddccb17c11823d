#include "fastvid/ops/downscale.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

const Op kDownscale{{.name = "Downscale",
                     .inputs = {{"x", DType::kFloat32}},
                     .outputs = {{DType::kFloat32}},
                     .attributes = {{"factor", 2}},
                     .compute = [](const Call& call) {
                       const Tensor x = call.input(0);
                       const int64_t factor = call.integer("factor");
                       const Tensor out = call.output(downscale_output(x, factor));
                       downscale(x, out, factor, call.executor());
                     }}};

}  // namespace
}  // namespace fastvid::onnxruntime
