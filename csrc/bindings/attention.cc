#include "fastvid/ops/attention.h"

#include <pybind11/stl.h>

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_attention(const py::object& q, const py::object& k, const py::object& v,
                        const py::object& bias, std::optional<float> scale, bool causal,
                        const py::object& out, int threads, const py::object& stream) {
  Call call("attention", stream);
  const AttentionArgs args{.q = call.input("q", q, Layout::kStrided),
                           .k = call.input("k", k, Layout::kStrided),
                           .v = call.input("v", v, Layout::kStrided),
                           .bias = call.optional_input("bias", bias, Layout::kStrided),
                           .scale = scale,
                           .causal = causal};
  Output result = call.output(out, attention_output(args), Layout::kStrided);
  call.run(threads, [&](const Executor& e) { attention(args, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_attention(py::module_& m) {
  m.def("attention", &py_attention, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("bias"),
        py::arg("scale").none(true), py::arg("causal"), py::arg("out"), py::arg("threads"),
        py::arg("stream"));
}

}  // namespace fastvid::python
