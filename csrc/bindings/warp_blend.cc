#include "fastvid/ops/warp_blend.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::object py_warp_blend(const py::object& image0, const py::object& image1, const py::object& flow,
                         const py::object& mask, const py::object& residual, const py::object& out,
                         bool to_uint8, int threads, const py::object& stream) {
  constexpr const char* op = "warp_blend";
  Call call(op, stream);
  const WarpBlendArgs args{.image0 = call.input("image0", image0),
                           .image1 = call.input("image1", image1),
                           .flow = call.input("flow", flow),
                           .mask = call.input("mask", mask),
                           .residual = call.optional_input("residual", residual)};
  const DType dtype = to_uint8 ? DType::kUint8 : DType::kFloat32;
  Output result = call.output(out, warp_blend_output(args, dtype));
  require_dtype(op, result.tensor, dtype);
  call.run(threads, [&](const Executor& e) { warp_blend(args, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_warp_blend(py::module_& m) {
  m.def("warp_blend", &py_warp_blend, py::arg("image0"), py::arg("image1"), py::arg("flow"),
        py::arg("mask"), py::arg("residual"), py::arg("out"), py::arg("to_uint8"),
        py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
