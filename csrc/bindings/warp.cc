#include "fastvid/ops/warp.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_warp(const py::object& image, const py::object& flow, bool zeros,
                   const py::object& out, int threads) {
  const WarpArgs args{.image = input("warp", "image", image),
                      .flow = input("warp", "flow", flow),
                      .padding = zeros ? Padding::kZeros : Padding::kBorder};
  Output result = output("warp", out, warp_output(args), args.image);
  run(result, threads, [&](const Executor& e) { warp(args, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_warp(py::module_& m) {
  m.def("warp", &py_warp, py::arg("image"), py::arg("flow"), py::arg("zeros"), py::arg("out"),
        py::arg("threads"));
}

}  // namespace fastvid::python
