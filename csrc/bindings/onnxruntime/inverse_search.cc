#include "fastvid/ops/inverse_search.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

void compute(const Call& call) {
  const InverseSearchOptions options{call.integer("iterations"), call.integer("stride"),
                                     call.integer("finest")};
  const Tensor luma0 = call.input(0), luma1 = call.input(1);
  Tensor expected = inverse_search_output(luma0, luma1, options);
  const Tensor flow01 = call.output(expected, 0);
  expected.name = "flow10";
  const Tensor flow10 = call.output(expected, 1);
  inverse_search(luma0, luma1, flow01, flow10, options, call.executor());
}

constexpr InverseSearchOptions kDefault;

const Op kInverseSearch{{.name = "InverseSearch",
                         .inputs = {{"luma0", DType::kFloat32}, {"luma1", DType::kFloat32}},
                         .outputs = {{DType::kFloat32}, {DType::kFloat32}},
                         .attributes = {{"iterations", kDefault.iterations},
                                        {"stride", kDefault.stride},
                                        {"finest", kDefault.finest}},
                         .compute = &compute}};

}  // namespace
}  // namespace fastvid::onnxruntime
