#include "fastvid/ops/qk_norm_rope.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::tuple py_qk_norm_rope(const py::object& q, const py::object& k, const py::object& q_weight,
                          const py::object& k_weight, const py::object& cos, const py::object& sin,
                          int norm, int rope, float eps, const py::object& q_out,
                          const py::object& k_out, int threads, const py::object& stream) {
  Call call("qk_norm_rope", stream);
  const QkNormRopeArgs args{.q = call.input("q", q, Layout::kStrided),
                            .k = call.input("k", k, Layout::kStrided),
                            .q_weight = call.optional_input("q_weight", q_weight),
                            .k_weight = call.optional_input("k_weight", k_weight),
                            .cos = call.optional_input("cos", cos),
                            .sin = call.optional_input("sin", sin),
                            .norm = static_cast<QkNorm>(norm),
                            .rope = static_cast<Rope>(rope),
                            .eps = eps};
  const QkNormRopeOutputs expected = qk_norm_rope_outputs(args);
  Output first = call.output(q_out, expected.q, Layout::kStrided);
  Output second = call.output(k_out, expected.k, Layout::kStrided);
  call.run(threads, [&](const Executor& e) { qk_norm_rope(args, first.tensor, second.tensor, e); });
  return py::make_tuple(first.object, second.object);
}

}  // namespace

void register_qk_norm_rope(py::module_& m) {
  m.def("qk_norm_rope", &py_qk_norm_rope, py::arg("q"), py::arg("k"), py::arg("q_weight"),
        py::arg("k_weight"), py::arg("cos"), py::arg("sin"), py::arg("norm"), py::arg("rope"),
        py::arg("eps"), py::arg("q_out"), py::arg("k_out"), py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
