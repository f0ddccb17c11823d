#include "fastvid/ops/luma.h"

#include "array.h"
#include "fastvid/core/error.h"
#include "module.h"

namespace fastvid::python {
namespace {

py::tuple py_rgb_to_luma(const py::object& frames, const py::object& out_luma,
                         const py::object& out_chroma, int threads, const py::object& stream) {
  constexpr const char* op = "rgb_to_luma";
  Call call(op, stream);
  const Tensor in = call.input("frames", frames);
  const LumaTensors expected = rgb_to_luma_output(in);
  Output first = call.output(out_luma, expected.luma);
  Output second = call.output(out_chroma, expected.chroma);
  const LumaTensors out{first.tensor, second.tensor};
  call.run(threads, [&](const Executor& e) { rgb_to_luma(in, out, e); });
  return py::make_tuple(first.object, second.object);
}

py::object py_luma_to_rgb(const py::object& luma, const py::object& chroma, bool wide,
                          const py::object& out, int threads, const py::object& stream) {
  constexpr const char* op = "luma_to_rgb";
  Call call(op, stream);
  const LumaTensors in{call.input("luma", luma), call.input("chroma", chroma)};
  const Tensor expected = luma_to_rgb_output(in, wide ? DType::kUint16 : DType::kUint8);
  Output result = call.output(out, expected);
  require_dtype(op, result.tensor, expected.dtype);
  call.run(threads, [&](const Executor& e) { luma_to_rgb(in, result.tensor, e); });
  return result.object;
}

}  // namespace

void register_luma(py::module_& m) {
  m.def("rgb_to_luma", &py_rgb_to_luma, py::arg("frames"), py::arg("out_luma"),
        py::arg("out_chroma"), py::arg("threads"), py::arg("stream"));
  m.def("luma_to_rgb", &py_luma_to_rgb, py::arg("luma"), py::arg("chroma"), py::arg("wide"),
        py::arg("out"), py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
