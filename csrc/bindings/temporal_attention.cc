#include "fastvid/ops/temporal_attention.h"

#include <pybind11/stl.h>

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_temporal_attention(const py::object& q, const py::object& k, const py::object& v,
                                 std::optional<float> scale, bool causal, const py::object& bias,
                                 const py::object& out, int threads, const py::object& stream) {
  Call call("temporal_attention", stream);
  const TemporalAttentionArgs args{.q = call.input("q", q, Layout::kStrided),
                                   .k = call.input("k", k, Layout::kStrided),
                                   .v = call.input("v", v, Layout::kStrided),
                                   .bias = call.optional_input("bias", bias),
                                   .scale = scale,
                                   .causal = causal};
  Output result = call.output(out, temporal_attention_output(args), Layout::kStrided);
  call.run(threads, [&](const Executor& e) { temporal_attention(args, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_temporal_attention(py::module_& m) {
  m.def("temporal_attention", &py_temporal_attention, py::arg("q"), py::arg("k"), py::arg("v"),
        py::arg("scale"), py::arg("causal"), py::arg("bias"), py::arg("out"), py::arg("threads"),
        py::arg("stream"));
}

}  // namespace fastvid::python
