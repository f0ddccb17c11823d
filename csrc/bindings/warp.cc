#include "fastvid/ops/warp.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_warp(const py::object& image, const py::object& flow, bool zeros,
                   const py::object& out, int threads, const py::object& stream) {
  Call call("warp", stream);
  const WarpArgs args{.image = call.input("image", image),
                      .flow = call.input("flow", flow),
                      .padding = zeros ? Padding::kZeros : Padding::kBorder};
  Output result = call.output(out, warp_output(args));
  call.run(threads, [&](const Executor& e) { warp(args, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_warp(py::module_& m) {
  m.def("warp", &py_warp, py::arg("image"), py::arg("flow"), py::arg("zeros"), py::arg("out"),
        py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
