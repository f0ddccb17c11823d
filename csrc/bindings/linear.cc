#include "fastvid/ops/linear.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_linear(const py::object& x, const py::object& weight, const py::object& bias,
                     bool bfloat16, const py::object& out, int threads, const py::object& stream) {
  Call call("linear", stream);
  const LinearArgs args{.x = call.input("x", x),
                        .weight = call.input("weight", weight),
                        .bias = call.optional_input("bias", bias),
                        .bfloat16 = bfloat16};
  Output result = call.output(out, linear_output(args));
  call.run(threads, [&](const Executor& e) { linear(args, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_linear(py::module_& m) {
  m.def("linear", &py_linear, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("bfloat16"),
        py::arg("out"), py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
