#include "fastvid/ops/planar.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_rgb_to_planar(const py::object& frames, const py::object& out, int threads) {
  const Tensor in = input("rgb_to_planar", "frames", frames);
  Output result = output("rgb_to_planar", out, rgb_to_planar_output(in), in);
  run(result, threads, [&](const Executor& e) { rgb_to_planar(in, result.tensor, e); });
  return result.object;
}

py::object py_planar_to_rgb(const py::object& x, const py::object& out, int threads) {
  const Tensor in = input("planar_to_rgb", "x", x);
  Output result = output("planar_to_rgb", out, planar_to_rgb_output(in), in);
  run(result, threads, [&](const Executor& e) { planar_to_rgb(in, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_planar(py::module_& m) {
  m.def("rgb_to_planar", &py_rgb_to_planar, py::arg("frames"), py::arg("out"), py::arg("threads"));
  m.def("planar_to_rgb", &py_planar_to_rgb, py::arg("x"), py::arg("out"), py::arg("threads"));
}

}  // namespace fastvid::python
