#include "fastvid/ops/warp_blend.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_warp_blend(const py::object& image0, const py::object& image1, const py::object& flow,
                         const py::object& mask, const py::object& residual, const py::object& out,
                         bool to_uint8, int threads) {
  constexpr const char* op = "warp_blend";
  const WarpBlendArgs args{.image0 = input(op, "image0", image0),
                           .image1 = input(op, "image1", image1),
                           .flow = input(op, "flow", flow),
                           .mask = input(op, "mask", mask),
                           .residual = optional_input(op, "residual", residual)};
  const DType dtype = to_uint8 ? DType::kUint8 : DType::kFloat32;
  Output result = output(op, out, warp_blend_output(args, dtype), args.image0);
  require_dtype(op, result.tensor, dtype);
  run(result, threads, [&](const Executor& e) { warp_blend(args, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_warp_blend(py::module_& m) {
  m.def("warp_blend", &py_warp_blend, py::arg("image0"), py::arg("image1"), py::arg("flow"),
        py::arg("mask"), py::arg("residual"), py::arg("out"), py::arg("to_uint8"),
        py::arg("threads"));
}

}  // namespace fastvid::python
