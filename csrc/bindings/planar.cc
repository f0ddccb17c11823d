#include "fastvid/ops/planar.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_rgb_to_planar(const py::object& frames, const py::object& out, int threads,
                            const py::object& stream) {
  Call call("rgb_to_planar", stream);
  const Tensor in = call.input("frames", frames);
  Output result = call.output(out, rgb_to_planar_output(in));
  call.run(threads, [&](const Executor& e) { rgb_to_planar(in, result.tensor, e); });
  return result.object;
}

py::object py_planar_to_rgb(const py::object& x, bool wide, const py::object& out, int threads,
                            const py::object& stream) {
  Call call("planar_to_rgb", stream);
  const Tensor in = call.input("x", x);
  const Tensor expected = planar_to_rgb_output(in, wide ? DType::kUint16 : DType::kUint8);
  Output result = call.output(out, expected);
  require_dtype("planar_to_rgb", result.tensor, expected.dtype);
  call.run(threads, [&](const Executor& e) { planar_to_rgb(in, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_planar(py::module_& m) {
  m.def("rgb_to_planar", &py_rgb_to_planar, py::arg("frames"), py::arg("out"), py::arg("threads"),
        py::arg("stream"));
  m.def("planar_to_rgb", &py_planar_to_rgb, py::arg("x"), py::arg("wide"), py::arg("out"),
        py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
