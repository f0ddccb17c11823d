#include "fastvid/ops/warp_blend.h"

#include <string>

#include "array.h"
#include "fastvid/core/error.h"
#include "module.h"

namespace fastvid::python {
namespace {

// `out_dtype` is the name of a dtype, or None for that of the images.
py::object py_warp_blend(const py::object& image0, const py::object& image1, const py::object& flow,
                         const py::object& mask, const py::object& residual, const py::object& out,
                         const py::object& out_dtype, int threads, const py::object& stream) {
  constexpr const char* op = "warp_blend";
  Call call(op, stream);
  const WarpBlendArgs args{.image0 = call.input("image0", image0),
                           .image1 = call.input("image1", image1),
                           .flow = call.input("flow", flow),
                           .mask = call.input("mask", mask),
                           .residual = call.optional_input("residual", residual)};
  const DType dtype =
      out_dtype.is_none() ? args.image0.dtype : dtype_named(out_dtype.cast<std::string>().c_str());
  const Tensor expected = warp_blend_output(args, dtype);
  if (expected.dtype != dtype) {
    throw InputError(
        std::string("warp_blend: out_dtype must be uint8, uint16 or that of the images, ") +
        dtype_name(expected.dtype) + ", got " + dtype_name(dtype));
  }
  Output result = call.output(out, expected);
  require_dtype(op, result.tensor, dtype);
  call.run(threads, [&](const Executor& e) { warp_blend(args, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_warp_blend(py::module_& m) {
  m.def("warp_blend", &py_warp_blend, py::arg("image0"), py::arg("image1"), py::arg("flow"),
        py::arg("mask"), py::arg("residual"), py::arg("out"), py::arg("out_dtype"),
        py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
